// The guest as the host tool sees it: a coordinator, who answers there, and a thaw that needs no session. Over an agent
// by src/qga/, at the socket of its channel or through libvirt; tests bring their own.
import type { Coordinator } from '../../consistency.js';
import { ThawUnconfirmedError, describeError } from '../../errors.js';
import { QgaClient, type AgentCaller } from '../../qga/client.js';
import { createRemoteCoordinator } from '../../qga/remote-coordinator.js';
import { RemoteError } from '../../rpc/errors.js';
import { parseLibvirtAddress } from '../vm/libvirt/address.js';

export interface GuestAgent extends AsyncDisposable {
  readonly coordinator: Coordinator;
  /** `stock` is qemu-ga: it has no lease, no report, and at best the level filesystem. */
  readonly kind: 'bridge' | 'stock';
  readonly version: string;
  /**
   * One attempt to thaw what a host froze, confirmed by the guest's status; `session` names the one meant, if there was
   * one. May be called at any time and again. Throws a ThawUnconfirmedError if the guest does not say, `limitMs` for each
   * answer, that it is thawed.
   */
  thaw(session?: string, limitMs?: number): Promise<{ readonly wasFrozen: boolean }>;
  /** The UUID of its machine, as the guest sees it; undefined if it does not say. Never throws. */
  machineUuid(): Promise<string | undefined>;
}

export interface AgentLimits {
  /** For an answer to a question, the first one included. */
  readonly answerMs: number;
  /** From the freeze request to its answer; must exceed the guest's prepare and hold budgets. */
  readonly freezeMs: number;
  /** For all attempts to have a thaw confirmed. */
  readonly thawMs: number;
}

export const defaultAgentLimits: AgentLimits = { answerMs: 5000, freezeMs: 90_000, thawMs: 120_000 };

/** Throws an UnreachableError if no agent answers within `limits.answerMs`. */
export type OpenGuestAgent = (where: string, limits: AgentLimits) => Promise<GuestAgent>;

/** One attempt to thaw: the guest's writers are released in it. */
const THAW_TRY_MS = 30_000;

interface OpenCaller extends AgentCaller {
  close(): Promise<void>;
}

async function openCaller(where: string, timeoutMs: number): Promise<OpenCaller> {
  const address = parseLibvirtAddress(where);
  if (address === undefined) return await QgaClient.connect(where, { timeoutMs });
  const { LibvirtAgent } = await import('../vm/libvirt/agent.js');
  return LibvirtAgent.open(address);
}

/** Opens the agent, ours or a stock qemu-ga, behind the socket of its channel, or of a libvirt domain. */
export const openGuestAgent: OpenGuestAgent = async (where, { answerMs, freezeMs, thawMs }) => {
  const client = await openCaller(where, answerMs);
  try {
    const thawTryMs = Math.min(THAW_TRY_MS, thawMs);
    const coordinator = await createRemoteCoordinator(client, { askMs: answerMs, freezeMs, thawTryMs, thawMs });
    const { kind, version } = coordinator;
    return {
      coordinator,
      kind,
      version,
      async thaw(session, limitMs = THAW_TRY_MS) {
        const limits = { askMs: Math.min(answerMs, limitMs), thawMs: Math.max(1, Math.min(THAW_TRY_MS, limitMs)) };
        try {
          const wasFrozen =
            kind === 'stock' ? await thawPlain(client, limits) : await thawSession(client, limits, session);
          return { wasFrozen };
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

/** SMBIOS, system UUID: QEMU puts the VM's own there. Any agent reads it, if its commands for files are not switched off. */
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

interface ThawLimits {
  readonly askMs: number;
  readonly thawMs: number;
}

async function thawSession(client: AgentCaller, limits: ThawLimits, session: string | undefined): Promise<boolean> {
  const timeoutMs = limits.askMs;
  const before = await client.call('bridge-status', {}, { timeoutMs });
  const { state } = before.status;
  if (session === undefined) {
    const thawed = await thawAny(client, limits);
    return state !== 'idle' || thawed > 0;
  }
  // Another session than the one meant: ours is over, and this one is not ours to end.
  if (state !== 'idle' && before.status.session !== undefined && before.status.session !== session) return false;
  // Idle confirms nothing while the last session, whosever it was, is not known to be thawed.
  if (state === 'idle' && before.report?.state !== 'frozen') return false;
  if (state === 'idle' && before.report?.session !== session) {
    throw new Error(`the agent does not know that session ${before.report?.session ?? ''} is thawed`);
  }
  const { report } = await client.call('bridge-thaw', { session }, { timeoutMs: limits.thawMs });
  if (report.state !== 'thawed') throw new Error(`after the thaw the agent's report is ${report.state}`);
  return true;
}

/**
 * The number of filesystems thawed. Sent whatever the status says: the agent answers with what it owes, a thaw that
 * nobody confirmed included. Its error is none only if its own last report tells of a guest that is thawed.
 */
async function thawAny(client: AgentCaller, { askMs, thawMs }: ThawLimits): Promise<number> {
  let failure: RemoteError | undefined;
  let thawed = 0;
  try {
    thawed = Number(await client.call('guest-fsfreeze-thaw', {}, { timeoutMs: thawMs }));
  } catch (error) {
    if (!(error instanceof RemoteError)) throw error;
    failure = error;
  }
  const { status, report } = await client.call('bridge-status', {}, { timeoutMs: askMs });
  if (status.state !== 'idle') throw failure ?? new Error(`after the thaw the agent is ${status.state}`);
  if (report !== undefined && report.state !== 'thawed') throw failure ?? new Error('its last session is not thawed');
  // A command that is switched off while nothing is frozen owes nothing.
  if (failure !== undefined && report === undefined && failure.class !== 'CommandNotFound') throw failure;
  return thawed;
}

// qemu-ga answers an error if only its hook failed, so the status decides.
async function thawPlain(client: AgentCaller, { askMs, thawMs }: ThawLimits): Promise<boolean> {
  let thawed: number | undefined;
  try {
    thawed = Number(await client.call('guest-fsfreeze-thaw', {}, { timeoutMs: thawMs }));
  } catch (error) {
    if (!(error instanceof RemoteError)) throw error;
  }
  const state = await client.call('guest-fsfreeze-status', {}, { timeoutMs: askMs });
  if (state === 'frozen') throw new Error('guest-fsfreeze-status says frozen after guest-fsfreeze-thaw');
  return thawed !== 0;
}
