// Captures the output of guest-exec's programs: it is read as it comes, kept up to the limits, and forgotten once it
// was asked for.
import { Socket } from 'node:net';

export const execLimits = {
  /** Children that run at a time. */
  running: 16,
  /** Kept of one stream: qemu-ga's GUEST_EXEC_MAX_OUTPUT. */
  streamBytes: 16 * 1024 * 1024,
  /** Kept for all children together, those included that have ended and nobody has asked for. */
  totalBytes: 64 * 1024 * 1024,
  /** Children kept that have ended and nobody has asked for; beyond, the oldest are forgotten. */
  ended: 64,
} as const;

export interface Captured {
  readonly bytes: Buffer;
  /** There was more, which is lost. */
  readonly truncated: boolean;
}

/** One stream of output, kept up to the limits and read to its end. */
export class Capture {
  readonly #budget: { left: number };
  readonly #socket: Socket | undefined;
  #pieces: Buffer[] = [];
  #length = 0;
  #truncated = false;
  closed: boolean;

  /** @param reader a descriptor, which is taken over; without it nothing is captured */
  constructor(budget: { left: number }, reader?: number) {
    this.#budget = budget;
    this.closed = reader === undefined;
    if (reader === undefined) return;
    const socket = new Socket({ fd: reader, readable: true, writable: false });
    this.#socket = socket;
    socket.on('data', (piece: Buffer) => {
      this.#keep(piece);
    });
    // An error of a pipe's reading end is its end.
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.closed = true;
    });
    // A child that never ends must not keep the agent from ending.
    socket.unref();
  }

  #keep(piece: Buffer): void {
    const room = Math.min(execLimits.streamBytes - this.#length, this.#budget.left);
    const kept = piece.subarray(0, Math.max(0, room));
    if (kept.length < piece.length) this.#truncated = true;
    if (kept.length === 0) return;
    // A small piece is copied: it would keep all 64 KiB of the buffer that it is cut from.
    this.#pieces.push(kept.length < 4096 ? Buffer.from(kept) : kept);
    this.#length += kept.length;
    this.#budget.left -= kept.length;
  }

  /** Gives out what was kept, once: it no longer counts against the limits. */
  take(): Captured {
    const bytes = Buffer.concat(this.#pieces);
    this.#pieces = [];
    this.#budget.left += this.#length;
    this.#length = 0;
    this.#socket?.destroy();
    return { bytes, truncated: this.#truncated };
  }
}
