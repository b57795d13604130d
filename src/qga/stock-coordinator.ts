// The Coordinator over a stock qemu-ga, by guest-fsfreeze-*. Such an agent has no lease, no session and no report: the
// guest stays frozen until somebody says thaw, so the thaw is repeated until it is confirmed (until-confirmed.ts). What
// the result is worth is stock-evidence.ts: at most `filesystem`, and the evidence says whose word it is.
import { constants } from 'node:os';
import { performance } from 'node:perf_hooks';
import { randomUUID } from 'node:crypto';
import { defined } from '../defined.js';
import {
  levelAskedFor,
  satisfies,
  type ConsistencyLevel,
  type Coordinator,
  type CoordinatorStatus,
  type FilesystemReport,
  type FreezeReport,
  type FreezeRequest,
  type FreezeSession,
  type Span,
  type WriterListing,
} from '../consistency.js';
import { BridgeError, describeError, QuiesceError, StateError, UsageError } from '../errors.js';
import { RemoteError } from '../rpc/errors.js';
import type { AgentCaller } from './client.js';
import { canFreeze, objections, survey, type Counts, type Survey } from './stock-evidence.js';
import { onceConfirmed, timeLeft, untilSessionThawed, type RemoteLimits } from './until-confirmed.js';

export class StockCoordinator implements Coordinator {
  readonly kind = 'stock';
  readonly version: string;
  readonly #client: AgentCaller;
  readonly #limits: RemoteLimits;
  #session: StockSession | undefined;

  constructor(client: AgentCaller, limits: RemoteLimits, version: string) {
    this.#client = client;
    this.#limits = limits;
    this.version = version;
  }

  async freeze(request: FreezeRequest, signal?: AbortSignal): Promise<FreezeSession> {
    const { disks, mountpoints, leave = [] } = request;
    if (leave.length > 0)
      throw new UsageError(
        'E_REQUIRE',
        'a stock qemu-ga holds nothing by writers alone: expected no filesystem to leave',
      );
    const needed = neededLevel(request);
    if (!satisfies('filesystem', needed)) {
      throw new QuiesceError('E_LEVEL', `level ${needed} was asked for, a stock qemu-ga proves at most filesystem`);
    }
    const ask = { timeoutMs: this.#limits.askMs };
    const state = await this.#client.call('guest-fsfreeze-status', {}, ask);
    if (state === 'frozen') throw new StateError('guest-fsfreeze-freeze', 'frozen by somebody else', ['thawed']);
    const found = survey(await this.#client.call('guest-get-fsinfo', {}, ask), disks, mountpoints);

    const session = new StockSession(this.#client, this.#limits, this.version, request, found);
    this.#session = session;
    await session.begin(signal);
    if (satisfies(session.report.level, needed)) return session;
    const report = await session.thaw();
    const failed: FreezeReport = { ...report, outcome: 'failed' };
    throw new QuiesceError('E_LEVEL', `level ${needed} was asked for: ${session.problem}`, {
      facts: { report: failed },
    });
  }

  async status(): Promise<CoordinatorStatus> {
    const state = await this.#client.call('guest-fsfreeze-status', {}, { timeoutMs: this.#limits.askMs });
    if (state === 'thawed') return { state: 'idle' };
    const held = this.#session?.report;
    if (held?.state !== 'frozen') return { state: 'frozen' };
    return { state: 'frozen', session: held.session, requester: held.requester };
  }

  /** A stock agent runs one hook and tells nobody. */
  writers(): Promise<readonly WriterListing[]> {
    return Promise.resolve([]);
  }

  complete(): Promise<undefined> {
    return Promise.resolve(undefined);
  }
}

type HowHeld = Pick<FilesystemReport, 'held' | 'reason' | 'freezeErrno'>;

function heldBy(filesystem: Survey['filesystems'][number], allHeld: boolean): HowHeld {
  if (!allHeld) return { held: 'none', reason: 'stock qemu-ga does not say which filesystems it froze' };
  if (!filesystem.concerned) return { held: 'none' };
  if (canFreeze(filesystem)) return { held: 'frozen' };
  // The errno is the kernel's answer; qemu-ga does not tell it.
  return { held: 'none', reason: `${filesystem.type} cannot be frozen`, freezeErrno: constants.errno.EOPNOTSUPP };
}

function neededLevel({ require }: FreezeRequest): ConsistencyLevel {
  return require === 'plain' ? 'none' : levelAskedFor(require, false);
}

class StockSession implements FreezeSession {
  readonly id: string;
  readonly #client: AgentCaller;
  readonly #limits: RemoteLimits;
  readonly #version: string;
  readonly #request: FreezeRequest;
  readonly #survey: Survey;
  readonly #start = performance.now();
  #freezeSpan: Span = { startMs: 0, endMs: 0 };
  #thawSpan: Span | undefined;
  #counts: Counts = { frozen: 0, thawed: undefined };
  readonly #thaw = onceConfirmed(() => this.#thawAndReport());

  constructor(client: AgentCaller, limits: RemoteLimits, version: string, request: FreezeRequest, found: Survey) {
    this.id = request.session ?? randomUUID();
    this.#client = client;
    this.#limits = limits;
    this.#version = version;
    this.#request = request;
    this.#survey = found;
  }

  /** Freezes. Throws a QuiesceError, the guest thawed, or a ThawUnconfirmedError. */
  async begin(signal: AbortSignal | undefined): Promise<void> {
    const { mountpoints } = this.#request;
    const options = { timeoutMs: this.#limits.freezeMs, ...defined({ signal }) };
    const startMs = this.#now();
    try {
      const frozen =
        mountpoints === undefined
          ? await this.#client.call('guest-fsfreeze-freeze', {}, options)
          : await this.#client.call('guest-fsfreeze-freeze-list', { mountpoints: [...mountpoints] }, options);
      this.#counts = { frozen: Number(frozen), thawed: undefined };
    } catch (cause) {
      const isRefused = cause instanceof RemoteError && cause.class === 'CommandNotFound';
      const isNotSent = cause instanceof BridgeError && cause.outcome === 'none';
      if (isRefused || isNotSent) throw cause;
      // After an error qemu-ga has thawed by itself, and left its hook's applications quiesced; after a lost reply
      // nobody knows. A thaw puts both right, and the status confirms it.
      await this.#untilThawed(describeError(cause));
      throw new QuiesceError('E_QUIESCE', `freeze by stock qemu-ga failed, guest thawed: ${describeError(cause)}`, {
        cause,
      });
    } finally {
      this.#freezeSpan = { startMs, endMs: this.#now() };
    }
  }

  /** For people: why the level is not `filesystem`. */
  get problem(): string {
    return this.#objections().join('; ');
  }

  get report(): FreezeReport {
    const against = this.#objections();
    const { requester, leaseMs } = this.#request;
    const { frozen, trouble } = this.#counts;
    const isOver = this.#thawSpan !== undefined;
    const allHeld = against.length === 0;
    const windowMs = this.#thawSpan === undefined ? 0 : this.#thawSpan.endMs - this.#freezeSpan.startMs;
    const whose = `stock qemu-ga ${this.#version}`;
    return {
      session: this.id,
      requester,
      state: isOver ? 'thawed' : 'frozen',
      outcome: trouble === undefined && (!isOver || this.#counts.thawed === frozen) ? 'ok' : 'broken',
      level: allHeld ? 'filesystem' : 'crash',
      evidence: allHeld
        ? [
            `${whose}: ${frozen} filesystems frozen${isOver ? ' and thawed' : ''}, the disks named are among theirs`,
            ...this.#survey.filesystems
              .filter((filesystem) => filesystem.concerned && !canFreeze(filesystem))
              .map(({ mountpoint, type }) => `${mountpoint} (${type}) cannot be frozen, and is not counted`),
          ]
        : against.map((reason) => `${whose}: ${reason}`),
      filesystems: this.#survey.filesystems.map((filesystem) => ({ ...filesystem, ...heldBy(filesystem, allHeld) })),
      writers: [],
      skipped: [
        { what: 'writers', reason: 'stock qemu-ga does not say which hooks ran' },
        { what: 'lease', reason: 'stock qemu-ga has none: the guest stays frozen until it is told to thaw' },
      ],
      steps: [
        { step: 'freeze', ...this.#freezeSpan },
        ...(this.#thawSpan === undefined ? [] : [{ step: 'thaw' as const, ...this.#thawSpan }]),
      ],
      leaseMs,
      // As the host sees them, from the request to the reply: never shorter than they were in the guest.
      pauseWindowMs: windowMs,
      frozenWindowMs: windowMs,
    };
  }

  /** Gives back what was asked for: there is no lease to renew. */
  renew(leaseMs: number): Promise<{ readonly remainingMs: number }> {
    return Promise.resolve({ remainingMs: leaseMs });
  }

  thaw(): Promise<FreezeReport> {
    return this.#thaw();
  }

  async #thawAndReport(): Promise<FreezeReport> {
    const startMs = this.#now();
    this.#counts = { frozen: this.#counts.frozen, ...(await this.#untilThawed()) };
    this.#thawSpan = { startMs, endMs: this.#now() };
    return this.report;
  }

  /**
   * Thaws until it is confirmed. By the status if there is `doubt`, or after an error, which may be the hook's with
   * everything thawed; else by the count. Throws a ThawUnconfirmedError.
   */
  async #untilThawed(doubt?: string): Promise<{ thawed: number | undefined; trouble?: string }> {
    let trouble = doubt;
    const { askMs, thawTryMs } = this.#limits;
    return await untilSessionThawed(this.#client.peer, this.#limits, async (deadline) => {
      try {
        const limit = { timeoutMs: timeLeft(deadline, thawTryMs) };
        const thawed = Number(await this.#client.call('guest-fsfreeze-thaw', {}, limit));
        if (trouble === undefined) return { thawed };
      } catch (error) {
        trouble ??= `the thaw answered: ${describeError(error)}`;
        if (!(error instanceof RemoteError)) throw error;
      }
      const state = await this.#client.call('guest-fsfreeze-status', {}, { timeoutMs: askMs });
      if (state === 'frozen') throw new Error('guest-fsfreeze-status says frozen after guest-fsfreeze-thaw');
      return { thawed: undefined, trouble };
    });
  }

  #objections(): readonly string[] {
    return objections(this.#survey, this.#request.mountpoints, this.#counts, this.#thawSpan !== undefined);
  }

  #now(): number {
    return performance.now() - this.#start;
  }
}
