// A typed client of any guest agent, ours or a stock qemu-ga: the handshake, one method for all commands, and replies
// checked against their declarations. Unknown members of a reply are tolerated: agents of other versions send them.
import * as v from 'valibot';
import { Deadline } from '../deadline.js';
import { UnreachableError } from '../errors.js';
import { RpcClient, type CallOptions } from '../rpc/client.js';
import type { ByteStream } from '../transport/byte-stream.js';
import { connectUnixSocket } from '../transport/unix-socket.js';
import { withPlainNumbers } from '../wire/value.js';
import { commands, type ArgsInput, type CommandName, type Returns } from './commands.js';

export type { CallOptions };

/** Who calls an agent, one command at a time, over a connection that a QgaClient or libvirt owns. */
export interface AgentCaller {
  /** Where the agent was found: for messages. */
  readonly peer: string;
  /**
   * Throws a RemoteError for what the agent refused; else a BridgeError, whose outcome is `unknown` if the command may
   * have been carried out. A reply that is not as declared is an UnreachableError with outcome `unknown`.
   */
  call<N extends CommandName>(name: N, args: ArgsInput<N>, options: CallOptions): Promise<Returns<N>>;
}

export interface ConnectOptions {
  /** How long connection and handshake may take together, the first time and whenever it connects anew. */
  readonly timeoutMs: number;
}

export class QgaClient implements AgentCaller, AsyncDisposable {
  readonly peer: string;
  readonly #path: string | undefined;
  readonly #options: ConnectOptions;
  #rpc: RpcClient;
  #reconnecting: Promise<RpcClient> | undefined;
  #closed = false;

  private constructor(rpc: RpcClient, path: string | undefined, options: ConnectOptions) {
    this.#rpc = rpc;
    this.#path = path;
    this.#options = options;
    this.peer = peerName(path);
  }

  /**
   * Connects to the socket of a guest-agent channel (or takes a connected stream) and finds its place in it: 0xFF and
   * guest-sync-delimited. Throws an UnreachableError if nobody answers within `timeoutMs`; the stream is closed then.
   * A client made from a path connects anew by itself when the agent's side was closed (agent or QEMU started anew).
   */
  static async connect(where: string | ByteStream, options: ConnectOptions): Promise<QgaClient> {
    const rpc = await handshake(where, options);
    return new QgaClient(rpc, typeof where === 'string' ? where : undefined, options);
  }

  /** Throws what AgentCaller says, and what RpcClient.call throws. */
  async call<N extends CommandName>(name: N, args: ArgsInput<N>, options: CallOptions): Promise<Returns<N>> {
    const rpc = await this.#connected();
    return checkReply(this.peer, name, withPlainNumbers(await rpc.call(name, args, options)));
  }

  /** Finds the place in the stream again. A call after a lost reply does so by itself. */
  async sync(timeoutMs: number): Promise<void> {
    const rpc = await this.#connected();
    await rpc.sync(timeoutMs);
  }

  /** Does not wait for the agent. May be called again. Never throws. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#rpc.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #connected(): Promise<RpcClient> {
    if (this.#rpc.open || this.#closed || this.#path === undefined) return this.#rpc;
    this.#reconnecting ??= this.#reconnect(this.#path).finally(() => {
      this.#reconnecting = undefined;
    });
    return await this.#reconnecting;
  }

  async #reconnect(path: string): Promise<RpcClient> {
    await this.#rpc.close();
    const rpc = await handshake(path, this.#options);
    this.#rpc = rpc;
    if (this.#closed) await rpc.close();
    return rpc;
  }
}

/** The reply to `name` as its declaration has it. Throws an UnreachableError of outcome `unknown` if it is another. */
export function checkReply<N extends CommandName>(peer: string, name: N, reply: unknown): Returns<N> {
  const result = v.safeParse(commands[name].returns, reply);
  if (result.success) return result.output;
  const issue: v.BaseIssue<unknown> = result.issues[0];
  const where = v.getDotPath(issue);
  const found = `${where === null ? '' : `${where}: `}expected ${issue.type === 'custom' ? issue.message : (issue.expected ?? issue.message)}, found ${issue.received}`;
  throw new UnreachableError('E_REPLY', `${peer}: answer to ${name} is not as declared: ${found}`, {
    outcome: 'unknown',
    facts: { command: name },
  });
}

const peerName = (path: string | undefined): string => (path === undefined ? 'guest agent' : `guest agent at ${path}`);

async function handshake(where: string | ByteStream, { timeoutMs }: ConnectOptions): Promise<RpcClient> {
  const deadline = new Deadline(timeoutMs);
  const path = typeof where === 'string' ? where : undefined;
  const stream = typeof where === 'string' ? await connectUnixSocket(where, timeoutMs) : where;
  const rpc = new RpcClient(stream, { peer: peerName(path), syncCommand: 'guest-sync-delimited' });
  try {
    await rpc.sync(deadline.remainingMs);
    return rpc;
  } catch (error) {
    await rpc.close();
    throw error;
  }
}
