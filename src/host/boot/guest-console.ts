// What a guest says on its serial console. It may say as much as it likes: its end is kept, and what tells of damage is
// looked for as it comes, so that neither a disk nor the memory of this host is filled by it.
import { connect, type Socket } from 'node:net';
import { UnreachableError } from '../../errors.js';
import { withLimit } from '../../deadline.js';
import { damageIn } from './damage.js';

const KEPT_BYTES = 1024 * 1024;
/** What comes without an end of line is looked at in pieces. */
const LINE_CHARACTERS = 4096;
const CONNECT_LIMIT_MS = 5000;

export class GuestConsole implements Disposable {
  readonly #socket: Socket;
  readonly #closed: Promise<void>;
  #chunks: Buffer[] = [];
  #bytes = 0;
  #line = '';
  #damage: string | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#closed = new Promise((resolve) =>
      socket.once('close', () => {
        resolve();
      }),
    );
    socket.on('data', (chunk: Buffer) => {
      this.#take(chunk);
    });
    // QEMU is gone: what it said is here.
    socket.on('error', () => undefined);
  }

  /** Connects to the socket of a QEMU that listens. Throws an UnreachableError. */
  static async connect(path: string): Promise<GuestConsole> {
    const socket = connect({ path });
    const connected = new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', (cause) => {
        reject(new UnreachableError('E_MONITOR_UNKNOWN', `cannot connect to the console ${path}`, { cause }));
      });
    });
    await withLimit(`console ${path}`, CONNECT_LIMIT_MS, connected);
    return new GuestConsole(socket);
  }

  /** The first line that told of damage. */
  get damage(): string | undefined {
    return this.#damage ?? damageIn(this.#line);
  }

  /** The last MiB of it. */
  get end(): Buffer {
    return Buffer.concat(this.#chunks).subarray(-KEPT_BYTES);
  }

  /** Waits until all was read that a QEMU that has ended said, at most so long. Never throws. */
  async closed(limitMs: number): Promise<void> {
    await withLimit('console', limitMs, this.#closed).catch(() => undefined);
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #take(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    if (this.#bytes > 2 * KEPT_BYTES) {
      this.#chunks = [Buffer.from(this.end)];
      this.#bytes = KEPT_BYTES;
    }
    // Only words of ASCII are looked for: a character that is cut in two does not matter.
    const lines = `${this.#line}${chunk.toString('latin1')}`.split('\n');
    this.#line = (lines.pop() ?? '').slice(-LINE_CHARACTERS);
    this.#damage ??= lines.map((line) => damageIn(line)).find((found) => found !== undefined);
  }
}
