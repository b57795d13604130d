// Types of the handlers. Each family of commands has a file beside this one; join.ts joins them. Sync, ping and info
// are answered by src/qga/server.ts.
import type { LocalCoordinator } from '../../freeze/options.js';
import type { Handlers as HandlersOf } from '../../qga/server.js';
import type { ChannelContext } from '../origin.js';
import type { SessionKeeper } from '../session-keeper.js';

export type Handlers = HandlersOf<ChannelContext>;

/** Handlers of some commands: each has the arguments, the context and the result of the command that it is named after. */
export function family<N extends keyof Handlers>(handlers: Pick<Handlers, N>): Pick<Handlers, N> {
  return handlers;
}

/** Given to the handlers of the freeze path. */
export interface FreezeEnvironment {
  readonly coordinator: LocalCoordinator;
  readonly keeper: SessionKeeper;
  /** Lease of a plain guest-fsfreeze-freeze, which cannot name one itself. */
  readonly plainLeaseMs: number;
}
