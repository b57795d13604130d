// Writes to a port: replies of one connection after another, in order and never mixed within a line, since all share
// one file descriptor. By hand and not through libuv: waiting for POLLOUT on a port whose host has gone is a busy loop,
// since epoll reports EPOLLHUP for it without being asked (virtio_console, 6.1).
import { writeSync } from 'node:fs';

/** Pauses between two attempts to write to a port that is full, or has no host: doubled while nothing moves. */
const fullPollMs = { first: 2, last: 128 } as const;

interface Entry {
  readonly owner: object;
  bytes: Uint8Array;
  readonly settle: (error?: Error) => void;
}

export class PortWriter {
  readonly #fd: number;
  readonly #onFailure: (owner: object, name: string) => void;
  #queue: Entry[] = [];
  #timer: NodeJS.Timeout | undefined;
  #pauseMs: number = fullPollMs.first;

  /** `onFailure` is told who could not write and the errno name; it is to drop what else that one has waiting. */
  constructor(fd: number, onFailure: (owner: object, name: string) => void) {
    this.#fd = fd;
    this.#onFailure = onFailure;
  }

  /** Settles when the port has the bytes; throws what they are dropped with. */
  write(owner: object, bytes: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (error?: Error): void => {
        if (error === undefined) resolve();
        else reject(error);
      };
      this.#queue.push({ owner, bytes, settle });
      if (this.#queue.length === 1) this.#flush();
    });
  }

  /** Drops what `owner` has waiting, also the rest of a line that was begun: 0xFF mends that for the next host. */
  drop(owner: object, error: Error): void {
    const dropped = this.#queue.filter((entry) => entry.owner === owner);
    if (dropped.length === 0) return;
    this.#queue = this.#queue.filter((entry) => entry.owner !== owner);
    for (const { settle } of dropped) settle(error);
    if (this.#queue.length === 0) clearTimeout(this.#timer);
  }

  #flush(): void {
    clearTimeout(this.#timer);
    for (let next = this.#queue[0]; next !== undefined; next = this.#queue[0]) {
      let written: number;
      try {
        written = writeSync(this.#fd, next.bytes);
      } catch (error) {
        const { code = 'EIO' } = error as NodeJS.ErrnoException;
        if (code !== 'EAGAIN') {
          this.#onFailure(next.owner, code);
          if (this.#queue[0] === next) this.drop(next.owner, new Error(`writing failed: ${code}`));
          continue;
        }
        written = 0;
      }
      this.#pauseMs = written > 0 ? fullPollMs.first : Math.min(this.#pauseMs * 2, fullPollMs.last);
      if (written < next.bytes.length) {
        next.bytes = next.bytes.subarray(written);
        this.#timer = setTimeout(() => {
          this.#flush();
        }, this.#pauseMs);
        return;
      }
      this.#queue.shift();
      next.settle();
    }
  }
}
