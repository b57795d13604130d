// Speaks to a guest agent as libvirt 9.0's driver does (qemu/qemu_agent.c; seen in its debug log), down to what it leaves
// undone: guest-sync (never -delimited) once per connection and again after a time-out, at most 5 s; then one command at
// a time, whose next line is its answer; what comes late is dropped; after a time-out nothing is taken back.
import type { Socket } from 'node:net';
import { connect } from 'node:net';
import * as v from 'valibot';

const SYNC_LIMIT_MS = 5000;

const Reply = v.looseObject({
  return: v.optional(v.unknown()),
  error: v.optional(v.looseObject({ desc: v.string() })),
});
type Reply = v.InferOutput<typeof Reply>;

export type Outcome =
  | { readonly kind: 'return'; readonly value: unknown }
  | { readonly kind: 'error'; readonly desc: string }
  /** Where: at `sync` the command was never sent. */
  | { readonly kind: 'time-out'; readonly at: 'sync' | 'command' };

export class LibvirtClient implements AsyncDisposable {
  readonly #socket: Socket;
  #synchronised = false;
  #received = '';
  #take: ((reply: Reply) => boolean) | undefined;
  #busy: Promise<unknown> = Promise.resolve();

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      this.#receive(chunk);
    });
    socket.on('error', () => undefined); // an answer that never comes tells it
  }

  static async connect(path: string): Promise<LibvirtClient> {
    const socket = connect(path);
    await new Promise((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return new LibvirtClient(socket);
  }

  /** One agent job at a time. `timeoutMs` is virsh guest-agent-timeout; without it, libvirt's default: for ever. */
  async call(command: string, timeoutMs?: number): Promise<Outcome> {
    const turn = this.#busy.then(async (): Promise<Outcome> => {
      if (!this.#synchronised) {
        const id = Date.now();
        const sync = await this.#exchange({ execute: 'guest-sync', arguments: { id } }, SYNC_LIMIT_MS, (reply) => {
          return reply.return === id;
        });
        if (sync === undefined) return { kind: 'time-out', at: 'sync' };
        this.#synchronised = true;
      }
      const reply = await this.#exchange({ execute: command }, timeoutMs, () => true);
      if (reply === undefined) {
        this.#synchronised = false;
        return { kind: 'time-out', at: 'command' };
      }
      return reply.error === undefined
        ? { kind: 'return', value: reply.return }
        : { kind: 'error', desc: reply.error.desc };
    });
    this.#busy = turn;
    return await turn;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.destroy();
    await Promise.resolve();
  }

  async #exchange(
    request: object,
    timeoutMs: number | undefined,
    isAnswer: (reply: Reply) => boolean,
  ): Promise<Reply | undefined> {
    return await new Promise((resolve) => {
      const end = (reply: Reply | undefined): void => {
        clearTimeout(timer);
        this.#take = undefined;
        resolve(reply);
      };
      const timer =
        timeoutMs === undefined
          ? undefined
          : setTimeout(() => {
              end(undefined);
            }, timeoutMs);
      this.#take = (reply) => {
        if (!isAnswer(reply)) return false;
        end(reply);
        return true;
      };
      this.#socket.write(`${JSON.stringify(request)}\n`);
    });
  }

  #receive(chunk: string): void {
    this.#received += chunk;
    for (;;) {
      const end = this.#received.indexOf('\n');
      if (end < 0) return;
      const line = this.#received.slice(0, end);
      this.#received = this.#received.slice(end + 1);
      // Nobody waits: libvirt ignores a delayed reply.
      this.#take?.(v.parse(Reply, JSON.parse(line)));
    }
  }
}
