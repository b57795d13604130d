// The guest as the host tool sees it: a coordinator, the kind of its agent, and a thaw that needs no session object. It
// is reached by src/qga/, at the socket of the agent's channel or through libvirt; tests bring agents of their own.
import type { Coordinator } from '../../consistency.js';
import { Deadline } from '../../deadline.js';
import { ThawUnconfirmedError, describeError } from '../../errors.js';
import { QgaClient, type AgentCaller } from '../../qga/client.js';
import { createRemoteCoordinator } from '../../qga/remote-coordinator.js';
import { thawAnySession, thawNamedSession, thawStock } from '../../qga/thaw-attempt.js';
import { socketAt, type Place } from '../vm/place.js';

export interface GuestAgent extends AsyncDisposable {
  readonly coordinator: Coordinator;
  /** `stock` is qemu-ga: it has no lease, no report, and at best the level filesystem. */
  readonly kind: 'bridge' | 'stock';
  readonly version: string;
  /**
   * One attempt to thaw what a host froze, confirmed by the guest's status; `session` names the one meant, if there was
   * one. May be called at any time and again. Throws a ThawUnconfirmedError if the guest does not say within `limitMs`
   * (30 s without it) that it is thawed. Repeated by thaw-guest.ts.
   */
  thaw(session?: string, limitMs?: number): Promise<{ readonly wasFrozen: boolean }>;
  /** The UUID of its machine, as the guest sees it; undefined if it does not say. Never throws. */
  machineUuid(): Promise<string | undefined>;
}

export interface AgentLimits {
  /** The answer to a question, the first one included. */
  readonly answerMs: number;
  /** The time from the freeze request to its answer; must exceed the guest's prepare and hold budgets. */
  readonly freezeMs: number;
  /** All attempts of a session to have its thaw confirmed. The lease may add to it: quiesce.ts. */
  readonly thawMs: number;
}

export const defaultAgentLimits: AgentLimits = { answerMs: 5000, freezeMs: 90_000, thawMs: 120_000 };

/** A string is the path of a socket. Throws an UnreachableError if no agent answers within `limits.answerMs`. */
export type OpenGuestAgent = (where: Place | string, limits: AgentLimits) => Promise<GuestAgent>;

/** How long one attempt to thaw may take: the guest's writers are released in it. */
const THAW_TRY_MS = 30_000;

interface OpenCaller extends AgentCaller {
  close(): Promise<void>;
}

async function openCaller(place: Place, timeoutMs: number): Promise<OpenCaller> {
  if (place.kind === 'socket') return await QgaClient.connect(place.path, { timeoutMs });
  const { LibvirtAgent } = await import('../vm/libvirt/agent.js');
  return LibvirtAgent.open(place);
}

/** Opens the agent, ours or a stock qemu-ga, behind the socket of its channel, or of a libvirt domain. */
export const openGuestAgent: OpenGuestAgent = async (where, { answerMs, freezeMs, thawMs }) => {
  const client = await openCaller(typeof where === 'string' ? socketAt(where) : where, answerMs);
  try {
    const thawTryMs = Math.min(THAW_TRY_MS, thawMs);
    const coordinator = await createRemoteCoordinator(client, { askMs: answerMs, freezeMs, thawTryMs, thawMs });
    const { kind, version } = coordinator;
    return {
      coordinator,
      kind,
      version,
      async thaw(session, limitMs = THAW_TRY_MS) {
        const limits = { askMs: answerMs, thawTryMs: THAW_TRY_MS, deadline: new Deadline(limitMs) };
        try {
          if (kind === 'stock') return { wasFrozen: await thawStock(client, limits) };
          if (session === undefined) return { wasFrozen: await thawAnySession(client, limits) };
          return { wasFrozen: await thawNamedSession(client, limits, session) };
        } catch (cause) {
          const message = `the guest does not confirm that it is thawed: ${describeError(cause)}`;
          throw new ThawUnconfirmedError('E_THAW_UNCONFIRMED', message, { cause, outcome: 'unknown' });
        }
      },
      async machineUuid() {
        return await readSmall(client, PRODUCT_UUID, answerMs).catch(() => undefined);
      },
      async [Symbol.asyncDispose]() {
        await client.close();
      },
    };
  } catch (error) {
    await client.close();
    throw error;
  }
};

/**
 * The system UUID of SMBIOS, where QEMU puts the VM's own. Any agent reads it whose commands for files are not switched
 * off.
 */
const PRODUCT_UUID = '/sys/class/dmi/id/product_uuid';

async function readSmall(client: AgentCaller, path: string, timeoutMs: number): Promise<string> {
  const handle = await client.call('guest-file-open', { path, mode: 'r' }, { timeoutMs });
  try {
    const { 'buf-b64': text } = await client.call('guest-file-read', { handle, count: 4096 }, { timeoutMs });
    return Buffer.from(text, 'base64').toString('utf8').trim();
  } finally {
    await client.call('guest-file-close', { handle }, { timeoutMs });
  }
}
