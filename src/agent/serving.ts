// The channels that are open, and the clients on them: each side has a dispatcher of its own, with its policy. How a
// channel is opened: channels.ts.
import { describeError } from '../errors.js';
import type { Logger } from '../log.js';
import { guestAgent } from '../qga/server.js';
import { Dispatcher } from '../rpc/dispatcher.js';
import type { ByteStream, Listener } from '../transport/byte-stream.js';
import {
  openHostChannel,
  openLocalSocket,
  rootSocketBeside,
  type ChannelMethod,
  type HostChannelOptions,
} from './channels.js';
import type { Handlers } from './handlers/types.js';
import type { ChannelContext, Client, Origin } from './origin.js';
import { withEnd } from './stream-end.js';
import type { Policies } from './policies.js';

/** The host's channel, as the settings have it. */
export interface ChannelOptions extends Pick<HostChannelOptions, 'retry' | 'activated'> {
  readonly method: ChannelMethod;
  /** Undefined for the method `none` alone. */
  readonly path?: string;
}

export interface ServingOptions {
  readonly handlers: Handlers;
  readonly policies: Policies;
  /** The version that guest-info answers. */
  readonly version: string;
  /** In words, who holds the guest, if that is somebody else than this client. */
  readonly heldFor: (client: ChannelContext) => string | undefined;
  readonly log: Logger;
}

export class Serving {
  /** Settles when the host's channel is lost for good; never if there is none. Never rejects. */
  readonly lost: Promise<Error>;
  readonly #options: ServingOptions;
  readonly #clients = new Set<ByteStream>();
  readonly #listeners: Listener[] = [];
  #clientsSoFar = 0;
  #lose: (error: Error) => void = () => undefined;

  constructor(options: ServingOptions) {
    this.#options = options;
    this.lost = new Promise((resolve) => {
      this.#lose = resolve;
    });
  }

  /**
   * Opens the sockets in the guest, if there are to be some, and then the host's channel. Throws what opening throws, but
   * not for a host channel that is to be tried again; `close` closes what is open by then.
   */
  async open({ method, path, ...channel }: ChannelOptions, localSocket: string | undefined): Promise<void> {
    const { log, policies } = this.#options;
    if (localSocket !== undefined) {
      await this.#openLocal(localSocket, false);
      await this.#openLocal(rootSocketBeside(localSocket), true);
    }
    if (method !== 'none' && path !== undefined) {
      const onStream = this.#serve({ origin: 'host', name: `${method} ${path}` });
      this.#listeners.push(await openHostChannel({ method, path, ...channel, onStream, onLost: this.#lose, log }));
    }
    log.info({ method, path, localSocket, compat: policies.host.compat }, 'serving');
  }

  async #openLocal(path: string, isRoots: boolean): Promise<void> {
    const { log } = this.#options;
    const onStream = this.#serve({ origin: 'guest', name: `local ${path}` }, (gone) => ({
      id: ++this.#clientsSoFar,
      isRoot: isRoots,
      gone,
    }));
    this.#listeners.push(await openLocalSocket({ path, isRoots, onStream, log }));
  }

  /** Closes the clients' connections, then the channels. Never throws. */
  async close(): Promise<void> {
    await Promise.all([...this.#clients].map((client) => client.close()));
    await Promise.all(this.#listeners.splice(0).map((listener) => listener.close()));
  }

  /** Answers the clients of one channel. `identify`: where each of them is a holder of its own. */
  #serve(channel: ChannelContext, identify?: (gone: AbortSignal) => Client): (stream: ByteStream) => void {
    const { log } = this.#options;
    const dispatcher = this.#dispatcherFor(channel.origin);
    return (stream) => {
      const { watched, ended } = withEnd(stream);
      const context = identify === undefined ? channel : { ...channel, client: identify(ended) };
      this.#clients.add(stream);
      log.debug({ channel: channel.name, client: context.client?.id }, 'client connected');
      void dispatcher
        .serve(watched, context)
        .catch((error: unknown) => {
          log.info({ channel: channel.name, error: describeError(error) }, 'client lost');
        })
        .finally(async () => {
          this.#clients.delete(stream);
          await stream.close();
        });
    };
  }

  #dispatcherFor(origin: Origin): Dispatcher<ChannelContext> {
    const { handlers, policies, version, heldFor, log } = this.#options;
    return new Dispatcher<ChannelContext>({
      ...guestAgent(handlers, policies[origin], version, heldFor),
      onError(error, command, { name }) {
        // Every client's first byte is 0xFF, which is no JSON: the protocol's way to begin anew.
        const text = describeError(error);
        const isSyntax = command === undefined && text.startsWith('JSON parse error');
        log[isSyntax ? 'debug' : 'info']({ channel: name, command, error: text }, 'answered an error');
      },
    });
  }
}
