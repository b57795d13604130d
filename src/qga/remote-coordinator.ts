// The Coordinator of src/consistency.ts over a guest agent: tells which kind of agent answers, and drives ours through
// bridge-*. A stock qemu-ga is stock-coordinator.ts. When the reply to a freeze is lost, the guest is thawed first, and
// only then the error goes up.
import { randomUUID } from 'node:crypto';
import { defined } from '../defined.js';
import type {
  CompleteOutcome,
  Completion,
  Coordinator,
  CoordinatorStatus,
  FreezeReport,
  FreezeRequest,
  FreezeSession,
  WriterListing,
} from '../consistency.js';
import { BridgeError, describeError, QuiesceError, StateError, UsageError } from '../errors.js';
import { RemoteError } from '../rpc/errors.js';
import type { AgentCaller } from './client.js';
import type { CommandName, Returns } from './commands.js';
import { StockCoordinator } from './stock-coordinator.js';
import { thawOwnSession } from './thaw-attempt.js';
import { defaultRemoteLimits, onceConfirmed, untilSessionThawed, type RemoteLimits } from './until-confirmed.js';

export interface RemoteCoordinator extends Coordinator {
  /** `bridge`: our agent. `stock`: qemu-ga, at most level `filesystem`. */
  readonly kind: 'bridge' | 'stock';
  /** The version that guest-info tells. */
  readonly version: string;
}

/** Asks the agent what it is. Does not own the client. Throws what AgentCaller.call throws. */
export async function createRemoteCoordinator(
  client: AgentCaller,
  limits: RemoteLimits = defaultRemoteLimits,
): Promise<RemoteCoordinator> {
  const info = await client.call('guest-info', {}, { timeoutMs: limits.askMs });
  const has = (command: CommandName): boolean => info.supported_commands.some(({ name }) => name === command);
  if (!has('bridge-freeze')) return new StockCoordinator(client, limits, info.version);
  return new BridgeCoordinator(client, limits, info.version, has('bridge-complete'));
}

/** `post` and `complete` of writers that name no limits of their own, and what it takes to end them. */
const COMPLETE_MS = 150_000;

class BridgeCoordinator implements RemoteCoordinator {
  readonly kind = 'bridge';
  readonly version: string;
  readonly #client: AgentCaller;
  readonly #limits: RemoteLimits;
  readonly #hasComplete: boolean;

  constructor(client: AgentCaller, limits: RemoteLimits, version: string, hasComplete: boolean) {
    this.#client = client;
    this.#limits = limits;
    this.version = version;
    this.#hasComplete = hasComplete;
  }

  async freeze(request: FreezeRequest, signal?: AbortSignal): Promise<FreezeSession> {
    const { requester, session = randomUUID(), leaseMs, require, disks, mountpoints, leave } = request;
    if (require === 'plain') {
      throw new UsageError('E_REQUIRE', `bridge-freeze expects a level or auto, found plain (guest-fsfreeze-freeze's)`);
    }
    const args = {
      session,
      requester,
      'lease-ms': leaseMs,
      require,
      ...(mountpoints === undefined ? {} : { mountpoints: [...mountpoints] }),
      ...(leave === undefined ? {} : { leave: [...leave] }),
      ...(disks === undefined
        ? {}
        : { disks: disks.map(({ serial, pciAddress }) => ({ serial, 'pci-address': pciAddress })) }),
    };
    const options = { timeoutMs: this.#limits.freezeMs, ...defined({ signal }) };
    let report: FreezeReport;
    try {
      ({ report } = await this.#client.call('bridge-freeze', args, options));
    } catch (error) {
      throw error instanceof RemoteError ? await this.#refused(session, error) : await this.#abandoned(session, error);
    }
    return new BridgeSession(this.#client, this.#limits, session, report);
  }

  async status(): Promise<CoordinatorStatus> {
    return (await this.#ask()).status;
  }

  async writers(): Promise<readonly WriterListing[]> {
    const { writers } = await this.#client.call('bridge-writers', {}, { timeoutMs: this.#limits.askMs });
    return writers;
  }

  async complete(session: string, outcome: CompleteOutcome, signal?: AbortSignal): Promise<Completion | undefined> {
    if (!this.#hasComplete) return undefined;
    const options = { timeoutMs: COMPLETE_MS, ...defined({ signal }) };
    try {
      return (await this.#client.call('bridge-complete', { session, outcome }, options)).completion;
    } catch (cause) {
      if (!(cause instanceof RemoteError)) throw cause;
      throw new QuiesceError('E_SESSION', cause.desc, { cause });
    }
  }

  #ask(): Promise<Returns<'bridge-status'>> {
    return this.#client.call('bridge-status', {}, { timeoutMs: this.#limits.askMs });
  }

  /**
   * The error for an agent that said no: it has thawed already, somebody else holds the guest, or it could not thaw.
   */
  async #refused(session: string, cause: RemoteError): Promise<Error> {
    let answer: Returns<'bridge-status'>;
    try {
      answer = await this.#ask();
    } catch {
      // A refusal says that the agent does not hold the guest as asked, not that the guest is thawed.
      return await this.#abandoned(session, cause);
    }
    const { status, report } = answer;
    if (status.state !== 'idle' && status.session !== session) {
      const holder = `${status.requester ?? 'somebody'}, session ${status.session ?? 'unknown'}`;
      return new StateError('bridge-freeze', `${status.state} (${holder})`, ['idle']);
    }
    const own = report?.session === session ? report : undefined;
    // Also for the report of another session: an agent that does not know whether the guest is thawed refuses all.
    if (status.state !== 'idle' || report?.state === 'frozen') return await this.#abandoned(session, cause);
    return new QuiesceError('E_QUIESCE', cause.desc, { cause, facts: own === undefined ? {} : { report: own } });
  }

  /**
   * The error for a freeze that nobody waits for any more, after a thaw, whether the guest was frozen or not. Throws a
   * ThawUnconfirmedError if the agent does not confirm that thaw.
   */
  async #abandoned(session: string, cause: unknown): Promise<Error> {
    if (cause instanceof BridgeError && cause.outcome === 'none') return cause;
    const report = await thawSession(this.#client, this.#limits, session);
    return new QuiesceError('E_QUIESCE_LOST', `freeze given up, guest thawed: ${describeError(cause)}`, {
      cause,
      facts: report === undefined ? {} : { report },
    });
  }
}

class BridgeSession implements FreezeSession {
  readonly id: string;
  readonly #client: AgentCaller;
  readonly #limits: RemoteLimits;
  #report: FreezeReport;
  readonly #thaw = onceConfirmed(() => this.#thawAndReport());

  constructor(client: AgentCaller, limits: RemoteLimits, id: string, report: FreezeReport) {
    this.#client = client;
    this.#limits = limits;
    this.id = id;
    this.#report = report;
  }

  get report(): FreezeReport {
    return this.#report;
  }

  async renew(leaseMs: number, signal?: AbortSignal): Promise<{ readonly remainingMs: number }> {
    const args = { session: this.id, 'lease-ms': leaseMs };
    const options = { timeoutMs: this.#limits.askMs, ...defined({ signal }) };
    try {
      const reply = await this.#client.call('bridge-renew', args, options);
      return { remainingMs: reply['remaining-ms'] };
    } catch (cause) {
      if (!(cause instanceof RemoteError)) throw cause;
      throw new QuiesceError('E_LEASE', cause.desc, { cause });
    }
  }

  thaw(): Promise<FreezeReport> {
    return this.#thaw();
  }

  async #thawAndReport(): Promise<FreezeReport> {
    const report = await thawSession(this.#client, this.#limits, this.id);
    // An agent that was started anew has thawed, and no longer knows the session: nothing proves that the hold lasted.
    const why = 'the agent confirms that the guest is thawed, but has lost the session: when it was thawed is unknown';
    this.#report = report ?? {
      ...this.#report,
      state: 'thawed',
      outcome: 'broken',
      level: 'crash',
      evidence: [why],
      error: why,
    };
    return this.#report;
  }
}

async function thawSession(
  client: AgentCaller,
  limits: RemoteLimits,
  session: string,
): Promise<FreezeReport | undefined> {
  return await untilSessionThawed(client.peer, limits, (deadline) =>
    thawOwnSession(client, { ...limits, deadline }, session),
  );
}
