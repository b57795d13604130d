// The channels that are open, and the clients on them: each side has a dispatcher of its own, with its policy. How a
// channel is opened: channels.ts.
import { describeError } from '../errors.js';
import type { Logger } from '../log.js';
import { guestAgent } from '../qga/server.js';
import { Dispatcher } from '../rpc/dispatcher.js';
import type { ByteStream, Listener } from '../transport/byte-stream.js';
import { openHostChannel, openLocalSocket, type HostChannelOptions } from './channels.js';
import type { Handlers } from './handlers/types.js';
import type { ChannelContext, Origin } from './origin.js';
import type { Policies } from './policies.js';

/** The host's channel, as the settings have it. */
export type ChannelOptions = Pick<HostChannelOptions, 'method' | 'path' | 'retry' | 'activated'>;

export interface ServingOptions {
  readonly handlers: Handlers;
  readonly policies: Policies;
  /** The version that guest-info answers. */
  readonly version: string;
  readonly log: Logger;
}

export class Serving {
  /** Settles when the host's channel is lost for good. Never rejects. */
  readonly lost: Promise<Error>;
  readonly #options: ServingOptions;
  readonly #clients = new Set<ByteStream>();
  readonly #listeners: Listener[] = [];
  #lose: (error: Error) => void = () => undefined;

  constructor(options: ServingOptions) {
    this.#options = options;
    this.lost = new Promise((resolve) => {
      this.#lose = resolve;
    });
  }

  /**
   * Opens the local socket, if there is to be one, and then the host's channel. Throws what opening throws, but not for
   * a host channel that is to be tried again; `close` closes what is open by then.
   */
  async open(channel: ChannelOptions, localSocket: string | undefined): Promise<void> {
    const { log, policies } = this.#options;
    if (localSocket !== undefined) {
      const onStream = this.#serve({ origin: 'guest', name: `local ${localSocket}` });
      this.#listeners.push(await openLocalSocket(localSocket, onStream, log));
    }
    const { method, path } = channel;
    const onStream = this.#serve({ origin: 'host', name: `${method} ${path}` });
    this.#listeners.push(await openHostChannel({ ...channel, onStream, onLost: this.#lose, log }));
    log.info({ method, path, localSocket, compat: policies.host.compat }, 'serving');
  }

  /** Closes the clients' connections, then the channels. Never throws. */
  async close(): Promise<void> {
    await Promise.all([...this.#clients].map((client) => client.close()));
    await Promise.all(this.#listeners.splice(0).map((listener) => listener.close()));
  }

  /** Answers the clients of one channel. */
  #serve(context: ChannelContext): (client: ByteStream) => void {
    const { log } = this.#options;
    const dispatcher = this.#dispatcherFor(context.origin);
    return (client) => {
      this.#clients.add(client);
      log.debug({ channel: context.name }, 'client connected');
      void dispatcher
        .serve(client, context)
        .catch((error: unknown) => {
          log.info({ channel: context.name, error: describeError(error) }, 'client lost');
        })
        .finally(async () => {
          this.#clients.delete(client);
          await client.close();
        });
    };
  }

  #dispatcherFor(origin: Origin): Dispatcher<ChannelContext> {
    const { handlers, policies, version, log } = this.#options;
    return new Dispatcher<ChannelContext>({
      ...guestAgent(handlers, policies[origin], version),
      onError(error, command, { name }) {
        // Every client's first byte is 0xFF, which is no JSON: the protocol's way to begin anew.
        const text = describeError(error);
        const isSyntax = command === undefined && text.startsWith('JSON parse error');
        log[isSyntax ? 'debug' : 'info']({ channel: name, command, error: text }, 'answered an error');
      },
    });
  }
}
