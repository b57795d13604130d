// Asks the agent of this guest to hold it: over its local socket, on one connection, with whose end the hold ends.
import { randomUUID } from 'node:crypto';
import type { CompleteOutcome, ConsistencyLevel, FreezeReport } from '../consistency.js';
import { Deadline } from '../deadline.js';
import { describeError, QuiesceError, UnreachableError } from '../errors.js';
import type { ProcessId } from '../linux/process-stat.js';
import { QgaClient } from '../qga/client.js';
import { RemoteError } from '../rpc/errors.js';

const CONNECT_LIMIT_MS = 5_000;
/** Prepare and hold budgets of the agent together, with what it takes to end them. */
const FREEZE_LIMIT_MS = 90_000;
const THAW_LIMIT_MS = 60_000;
const ASK_LIMIT_MS = 5_000;
/** `post` and `complete` of all writers. */
const COMPLETE_LIMIT_MS = 150_000;
/** Longer than any cut takes. The agent waits no longer for the end of a section. */
const SECTION_BOUND_MS = 30_000;
/** A section that young need not begin anew: a turn to the agent costs time while all stand still. */
const FRESH_MS = 1_000;

export interface HoldRequest {
  readonly requester: string;
  /** Everything that is held, as in mountinfo. */
  readonly mountpoints: readonly string[];
  /** Those of them that their providers freeze. */
  readonly leave: readonly string[];
  readonly leaseMs: number;
  readonly require: ConsistencyLevel | 'auto';
}

export interface Section {
  /** How long everything waits for its end at most, in milliseconds. */
  readonly remainingMs: number;
  /** More is to come: its whole time begins anew. Throws a QuiesceError if the agent refuses. */
  goOn(): Promise<void>;
}

/** A guest that is held for us. */
export interface Hold {
  readonly session: string;
  /** What was told when it began. */
  readonly report: FreezeReport;
  /**
   * From now on a device may be suspended, and nobody but us may thaw: until the next section begins, or our thaw, which
   * says by itself that the section is over. Should we die, until `worker` has ended. Throws a QuiesceError if the agent
   * refuses.
   */
  beginSection(worker: ProcessId | undefined): Promise<Section>;
  renew(leaseMs: number): Promise<void>;
  /** Gives the final report. Throws an UnreachableError if nobody answers: then the end of the connection thaws. */
  thaw(): Promise<FreezeReport>;
}

export class Requester implements AsyncDisposable {
  readonly #client: QgaClient;

  private constructor(client: QgaClient) {
    this.#client = client;
  }

  /** Throws an UnreachableError if no agent answers at its socket. */
  static async connect(socket: string | undefined): Promise<Requester> {
    if (socket === undefined)
      throw new UnreachableError('E_NO_AGENT', 'no agent runs here: expected fsfreeze-agent at its local socket');
    return new Requester(await QgaClient.connect(socket, { timeoutMs: CONNECT_LIMIT_MS }));
  }

  /** Throws a QuiesceError if the agent refuses or fails: it has thawed then. */
  async hold(request: HoldRequest): Promise<Hold> {
    const { requester, mountpoints, leave, leaseMs, require } = request;
    const session = randomUUID();
    const args = {
      session,
      requester,
      mountpoints: [...mountpoints],
      ...(leave.length === 0 ? {} : { leave: [...leave] }),
      'lease-ms': leaseMs,
      require,
      'ends-with-channel': true,
    };
    const report = await this.#ask(async () => {
      return (await this.#client.call('bridge-freeze', args, { timeoutMs: FREEZE_LIMIT_MS })).report;
    });
    return {
      session,
      report,
      beginSection: async (worker) => await this.#beginSection(session, worker),
      renew: async (ms) => {
        await this.#ask(() =>
          this.#client.call('bridge-renew', { session, 'lease-ms': ms }, { timeoutMs: ASK_LIMIT_MS }),
        );
      },
      thaw: async () =>
        await this.#ask(
          async () => (await this.#client.call('bridge-thaw', { session }, { timeoutMs: THAW_LIMIT_MS })).report,
        ),
    };
  }

  /**
   * After the thaw: tells the writers what became of the cut. `signal` gives up waiting. Throws as hold() does, and what the
   * connection does.
   */
  async complete(session: string, outcome: CompleteOutcome, signal: AbortSignal): Promise<void> {
    await this.#ask(() =>
      this.#client.call('bridge-complete', { session, outcome }, { timeoutMs: COMPLETE_LIMIT_MS, signal }),
    );
  }

  async #beginSection(session: string, worker: ProcessId | undefined): Promise<Section> {
    const args = {
      ...{ session, on: true, 'bound-ms': SECTION_BOUND_MS },
      ...(worker === undefined ? {} : { worker: { pid: worker.pid, 'start-time': worker.startTime } }),
    };
    const begin = async (): Promise<Deadline> => {
      const deadline = new Deadline(SECTION_BOUND_MS);
      await this.#ask(() => this.#client.call('bridge-critical', args, { timeoutMs: ASK_LIMIT_MS }));
      return deadline;
    };
    let deadline = await begin();
    return {
      get remainingMs() {
        return deadline.remainingMs;
      },
      async goOn() {
        if (deadline.remainingMs <= SECTION_BOUND_MS - FRESH_MS) deadline = await begin();
      },
    };
  }

  async #ask<T>(call: () => Promise<T>): Promise<T> {
    try {
      return await call();
    } catch (cause) {
      if (!(cause instanceof RemoteError)) throw cause;
      throw new QuiesceError('E_QUIESCE', describeError(cause), { cause });
    }
  }

  /** Ends the hold, if there still is one. Never throws. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client.close();
  }
}
