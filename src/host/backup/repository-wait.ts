// Waits for a repository as long as it moves, however slowly. One that hangs (the server of a hard NFS mount is gone) gives
// neither an answer nor an error: then the run fails, and lets go of the VM. The call that hangs stays where it is, and keeps
// one of the few threads (four) that do all work on files, those of the VM's lock among them: so no second one is sent after it.
import { interruption, throwIfInterrupted } from '../../confirm.js';
import { unlessAborted } from '../../deadline.js';
import { DeadlineError, QuiesceError } from '../../errors.js';
import { freeBytes } from './space-watch.js';

const TICK_MS = 1000;
const NOTHING = 'nothing was backed up';

export interface WaitLimits {
  readonly signal: AbortSignal;
  /** How long it may be silent. */
  readonly stallMs: number;
}

export interface WaitOptions {
  /** False for what is not to be ended by the signal. */
  readonly isInterruptible?: boolean;
  /** Grows as long as the work gets on. Without it the filesystem is asked whether it answers: it tells nothing of a sync. */
  readonly progress?: () => number;
}

export class RepositoryWait {
  readonly #path: string;
  readonly #limits: WaitLimits;
  readonly #ask: typeof freeBytes;
  readonly #under = new Set<Promise<void>>();
  #asking: Promise<number> | undefined;
  #givenUp: Error | undefined;

  constructor(path: string, limits: WaitLimits, ask = freeBytes) {
    this.#path = path;
    this.#limits = limits;
    this.#ask = ask;
  }

  /** What freeBytes gives of it. Asked once at a time, whoever wants to know. */
  readonly free = async (): Promise<number> => {
    this.#asking ??= this.#ask(this.#path).finally(() => {
      this.#asking = undefined;
    });
    return await this.#asking;
  };

  /**
   * Waits for `work` on the repository, which `what` names (`reading its runs`). Throws what it throws; a DeadlineError if the
   * repository is silent for too long; a QuiesceError when interrupted. In these two cases the work may be under way still, and
   * whatever is waited for later fails at once.
   */
  async for<T>(what: string, work: () => Promise<T>, options: WaitOptions = {}): Promise<T> {
    const { signal } = this.#limits;
    const { isInterruptible = true, progress } = options;
    this.check();
    if (isInterruptible) throwIfInterrupted(signal, NOTHING);
    const working = work();
    const under = working.then(
      () => undefined,
      () => undefined,
    );
    this.#under.add(under);
    void under.then(() => this.#under.delete(under));
    let timer: NodeJS.Timeout | undefined;
    const silence = new Promise<never>((_resolve, reject) => {
      timer = this.#untilSilent(progress, () => {
        reject(new DeadlineError(`the repository ${this.#path} (${what})`, this.#limits.stallMs));
      });
    });
    const interrupted = (): Error => new QuiesceError('E_INTERRUPTED', interruption(signal, NOTHING));
    try {
      return await unlessAborted(Promise.race([working, silence]), isInterruptible ? signal : undefined, interrupted);
    } catch (error) {
      if (this.#under.has(under) && error instanceof Error) this.#givenUp ??= error;
      throw error;
    } finally {
      clearInterval(timer);
    }
  }

  /** A wait ended before its work did. */
  get isGivenUp(): boolean {
    return this.#givenUp !== undefined;
  }

  /** Throws what ended a wait before its work: for work that must not go on then. */
  check(): void {
    if (this.#givenUp !== undefined) throw this.#givenUp;
  }

  /** Returns when no work is under way that was waited for. Never throws. */
  async idle(): Promise<void> {
    await Promise.all(this.#under);
  }

  /** Counts what it sees, not the time: a process that was stopped has heard nothing, and knows nothing. */
  #untilSilent(progress: (() => number) | undefined, onSilence: () => void): NodeJS.Timeout {
    const { stallMs } = this.#limits;
    const tickMs = Math.min(TICK_MS, stallMs);
    let silentMs = 0;
    let before = progress?.();
    const heard = (): void => {
      silentMs = 0;
    };
    return setInterval(() => {
      if (silentMs >= stallMs) onSilence();
      silentMs += tickMs;
      if (progress === undefined) {
        // That it cannot say is an answer, too.
        this.free().then(heard, heard);
        return;
      }
      const now = progress();
      if (now !== before) heard();
      before = now;
    }, tickMs);
  }
}
