// A plain guest-agent client for the fixture: one request, one reply, resynchronised by guest-sync-delimited at connect and
// after any lost reply. The full client is src/qga/client.ts. It is code under test, so the fixture does without it.
import type { Socket } from 'node:net';
import { randomInt } from 'node:crypto';
import * as v from 'valibot';
import { Deadline, withLimit } from '../deadline.js';
import { BridgeError, UnreachableError } from '../errors.js';
import { connectUnix } from './connect-unix.js';

const Reply = v.looseObject({
  return: v.optional(v.unknown()),
  error: v.optional(v.object({ class: v.string(), desc: v.string() })),
});
type Reply = v.InferOutput<typeof Reply>;

export class AgentChannel implements AsyncDisposable {
  readonly path: string;
  #socket: Socket | undefined;
  #received: Buffer = Buffer.alloc(0);
  #seekSentinel = false;
  #waiting: { resolve: (reply: Reply) => void; reject: (error: Error) => void } | undefined;
  #queue: Promise<unknown> = Promise.resolve();

  /** @param path the host end of the port: the chardev's unix socket. Only one client at a time is ever served. */
  constructor(path: string) {
    this.path = path;
  }

  /**
   * Sends one command and gives what it returned. Calls wait for one another. Throws BridgeError `E_AGENT_REFUSED` with
   * the agent's own words, DeadlineError (outcome unknown) when no reply came in `timeoutMs`; the next call
   * resynchronises first.
   */
  async execute(command: string, args?: Readonly<Record<string, unknown>>, timeoutMs = 10_000): Promise<unknown> {
    const turn = this.#queue.then(async () => {
      const deadline = new Deadline(timeoutMs);
      if (this.#socket === undefined) await this.#synchronise(deadline);
      const reply = await this.#exchange(command, args, deadline.remainingMs);
      if (reply.error !== undefined) {
        throw new BridgeError('E_AGENT_REFUSED', `${command}: ${reply.error.desc}`, { facts: reply.error });
      }
      return reply.return;
    });
    this.#queue = turn.catch(() => undefined);
    return await turn;
  }

  /** Waits until an agent answers guest-ping. Throws UnreachableError `E_AGENT_SILENT` after `timeoutMs`. */
  async waitForPing(timeoutMs: number): Promise<void> {
    const deadline = new Deadline(timeoutMs);
    // Short at first: what is sent to a serial line before the agent has opened it is lost.
    for (let limitMs = 200; ; limitMs = Math.min(1000, limitMs * 1.5)) {
      try {
        await this.execute('guest-ping', undefined, Math.min(limitMs, deadline.remainingMs + 1));
        return;
      } catch (cause) {
        if (deadline.passed) {
          throw new UnreachableError('E_AGENT_SILENT', `no agent answered at ${this.path} within ${timeoutMs} ms`, {
            cause,
          });
        }
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }

  /** Lets go of the socket, so that someone else can be served; the next `execute` connects again. */
  close(): void {
    this.#socket?.destroy();
    this.#socket = undefined;
    this.#waiting?.reject(
      new UnreachableError('E_AGENT_CLOSED', `${this.path}: connection closed`, { outcome: 'unknown' }),
    );
    this.#waiting = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
    await Promise.resolve();
  }

  async #synchronise(deadline: Deadline): Promise<void> {
    const socket = await connectUnix(this.path, deadline.remainingMs);
    this.#socket = socket;
    this.#received = Buffer.alloc(0);
    socket.on('data', (chunk: Buffer) => {
      if (this.#socket === socket) this.#receive(chunk);
    });
    socket.on('error', () => undefined); // told by close
    socket.on('close', () => {
      if (this.#socket === socket) this.close();
    });
    const id = randomInt(1, 2 ** 31);
    // Older replies may still be under way, delimited ones too: read on until the one with our id.
    this.#seekSentinel = true;
    socket.write(Buffer.from([0xff]));
    let reply = await this.#exchange('guest-sync-delimited', { id }, deadline.remainingMs);
    while (reply.return !== id) reply = await this.#exchange(undefined, undefined, deadline.remainingMs);
    this.#seekSentinel = false;
  }

  async #exchange(command: string | undefined, args: object | undefined, timeoutMs: number): Promise<Reply> {
    const reply = new Promise<Reply>((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
    if (command !== undefined) this.#socket?.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    else this.#receive(Buffer.alloc(0));
    try {
      return await withLimit(`${command ?? 'guest-sync-delimited'} at ${this.path}`, timeoutMs, reply, 'unknown');
    } catch (cause) {
      reply.catch(() => undefined);
      this.close();
      throw cause;
    }
  }

  #receive(chunk: Buffer): void {
    this.#received = Buffer.concat([this.#received, chunk]);
    if (this.#seekSentinel) {
      const sentinel = this.#received.lastIndexOf(0xff);
      if (sentinel < 0) return;
      this.#received = this.#received.subarray(sentinel + 1);
    }
    const end = this.#received.indexOf(0x0a);
    if (end < 0 || this.#waiting === undefined) return;
    const line = this.#received.subarray(0, end).toString('utf8');
    this.#received = this.#received.subarray(end + 1);
    const { resolve, reject } = this.#waiting;
    this.#waiting = undefined;
    try {
      resolve(v.parse(Reply, JSON.parse(line)));
    } catch (cause) {
      reject(
        new BridgeError('E_AGENT_GIBBERISH', `${this.path}: no guest-agent reply: ${line.slice(0, 80)}`, { cause }),
      );
    }
  }
}
