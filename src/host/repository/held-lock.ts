// A lock of a VM's backups that this process has, and renews.
import { rm } from 'node:fs/promises';
import { withLimit } from '../../deadline.js';
import { UsageError } from '../../errors.js';
import { writeDurably } from '../images/durable-file.js';
import { describe, expiryIn, readLock, textOf, type Lock } from './lock-file.js';

/** Long enough for a host that is suspended for a moment, or a storage that hangs. */
export const EXPIRES_MS = 10 * 60_000;
const RENEW_MS = EXPIRES_MS / 5;
/** Where the repository hangs, the lock is left: its owner is gone then. */
const RELEASE_MS = 10_000;

/** Held until disposed, or until the process ends. */
export class HeldLock implements AsyncDisposable {
  readonly #file: string;
  readonly #timer: NodeJS.Timeout;
  #lock: Lock;
  #lastsMs: number;
  #renewal: Promise<void> | undefined;
  #isLeft = false;

  constructor(file: string, lock: Lock, lastsMs = EXPIRES_MS) {
    this.#file = file;
    this.#lock = lock;
    this.#lastsMs = lastsMs;
    // One that could not be renewed is seen by check().
    this.#timer = setInterval(() => {
      this.#renewal ??= this.#renew()
        .catch(() => undefined)
        .finally(() => {
          this.#renewal = undefined;
        });
    }, RENEW_MS).unref();
  }

  /** Throws a UsageError `E_REPOSITORY_BUSY` if another process has taken it since, as one that seemed dead. */
  async check(): Promise<void> {
    const there = await readLock(this.#file);
    if (there?.lock?.token === this.#lock.token) return;
    const message = `the lock ${this.#file} was lost: ${there === undefined ? 'it is gone' : describe(this.#file, there.lock)}`;
    throw new UsageError('E_REPOSITORY_BUSY', message);
  }

  /** It is another process's from now on, and counts for so long on hosts that cannot see it. Durable when it returns. */
  async handOver(owner: Lock['owner'], lastsMs: number): Promise<void> {
    await this.check();
    await this.#renewal;
    this.#lastsMs = lastsMs;
    this.#lock = { ...this.#lock, owner };
    await this.#renew();
  }

  /** It stays when it is disposed. */
  leave(): void {
    this.#isLeft = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    try {
      await withLimit('the lock to be given back', RELEASE_MS, this.#release());
    } catch {
      // A lock that is left has an owner that is gone.
    }
  }

  async #renew(): Promise<void> {
    if ((await readLock(this.#file))?.lock?.token !== this.#lock.token) return;
    await writeDurably(this.#file, textOf({ ...this.#lock, expires: expiryIn(this.#lastsMs) }));
  }

  async #release(): Promise<void> {
    await this.#renewal;
    if (this.#isLeft) return;
    if ((await readLock(this.#file))?.lock?.token === this.#lock.token) await rm(this.#file, { force: true });
  }
}
