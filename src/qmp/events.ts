// Listeners for events of a monitor. Each has its own queue and filter, so that whoever waits for the end of a job takes no
// event away from somebody else. Specification: QEMU docs/interop/qmp-spec, "Asynchronous events".
import { DeadlineError } from '../errors.js';

export interface QmpEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
  /** QEMU's wall clock. */
  readonly timestamp: { readonly seconds: number; readonly microseconds: number };
}

export type QmpEventFilter = (event: QmpEvent) => boolean;

/** A listener nobody reads must not eat the memory: the oldest events are dropped. */
const MAX_QUEUED = { events: 4096, bytes: 4 * 1024 * 1024 } as const;

interface Waiter {
  resolve(event: QmpEvent): void;
  reject(error: Error): void;
}

export class QmpEventListener implements Disposable {
  readonly #queue: { readonly event: QmpEvent; readonly bytes: number }[] = [];
  #queuedBytes = 0;
  readonly #wanted: (event: QmpEvent) => boolean;
  readonly #name: string;
  readonly #release: (listener: QmpEventListener) => void;
  #waiters: Waiter[] = [];
  #ended: Error | undefined;

  /** Made by `QmpClient.listen`. @internal */
  constructor(name: string, filter: QmpEventFilter, release: (listener: QmpEventListener) => void) {
    this.#name = name;
    this.#wanted = (event) => event.event === name && filter(event);
    this.#release = release;
  }

  /**
   * The next event that passes the filter, those that came since `listen` first. Throws a DeadlineError after
   * `timeoutMs`, an UnreachableError if the connection ends before.
   */
  async next(timeoutMs: number): Promise<QmpEvent> {
    const queued = this.#shift();
    if (queued !== undefined) return queued;
    if (this.#ended !== undefined) throw this.#ended;
    return await new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiters = this.#waiters.filter((other) => other !== waiter);
        reject(new DeadlineError(`event ${this.#name}`, timeoutMs));
      }, timeoutMs);
      const waiter: Waiter = {
        resolve(event) {
          clearTimeout(timer);
          resolve(event);
        },
        reject(error) {
          clearTimeout(timer);
          reject(error);
        },
      };
      this.#waiters.push(waiter);
    });
  }

  /** Called by the client for every event. `bytes`: length of its text. @internal */
  offer(event: QmpEvent, bytes: number): void {
    if (!this.#wanted(event)) return;
    const waiter = this.#waiters.shift();
    if (waiter !== undefined) {
      waiter.resolve(event);
      return;
    }
    this.#queue.push({ event, bytes });
    this.#queuedBytes += bytes;
    while (this.#queue.length > MAX_QUEUED.events || this.#queuedBytes > MAX_QUEUED.bytes) this.#shift();
  }

  #shift(): QmpEvent | undefined {
    const first = this.#queue.shift();
    this.#queuedBytes -= first?.bytes ?? 0;
    return first?.event;
  }

  /** Called by the client when the connection ends. @internal */
  end(error: Error): void {
    this.#ended = error;
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error);
  }

  [Symbol.dispose](): void {
    this.#release(this);
    this.end(new Error(`listener for ${this.#name} was disposed`));
  }
}
