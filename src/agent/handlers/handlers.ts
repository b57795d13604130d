// What handlers are given. One file per command family beside this one; they are joined in ../agent.ts. Sync, ping and
// info are answered by src/qga/server.ts.
import type { HungFilesystem, UnreleasedWriter } from '../../consistency.js';
import type { LocalCoordinator } from '../../freeze/options.js';
import type { Handlers as HandlersOf } from '../../qga/server.js';
import type { ChannelContext, SessionKeeper } from '../session-keeper.js';

export type Handlers = HandlersOf<ChannelContext>;

/** What sessions left behind that have ended. */
interface Leftovers {
  readonly unreleased: readonly UnreleasedWriter[];
  /** `sinceMs` on CLOCK_MONOTONIC. Never rejects. */
  hungFilesystems(): Promise<readonly (Omit<HungFilesystem, 'forMs'> & { readonly sinceMs: number })[]>;
}

export interface FreezeEnvironment {
  readonly coordinator: LocalCoordinator & Partial<Leftovers>;
  readonly keeper: SessionKeeper;
  /** Lease of a plain guest-fsfreeze-freeze, which cannot name one itself. */
  readonly plainLeaseMs: number;
}
