// Joins all command families into the one table that is served. A command that is in no family is a type error.
import type { Sources } from '../kernel-files.js';
import type { ChannelContext } from '../origin.js';
import { accountHandlers } from './accounts.js';
import { bridgeHandlers } from './bridge.js';
import { execHandlers } from './exec.js';
import { fileHandlers } from './files.js';
import { filesystemHandlers } from './filesystems.js';
import { fsfreezeHandlers } from './fsfreeze.js';
import { hardwareHandlers } from './hardware.js';
import { networkHandlers } from './network.js';
import { powerHandlers } from './power.js';
import { statisticsHandlers } from './statistics.js';
import { storageHandlers } from './storage.js';
import { systemHandlers } from './system.js';
import { timeHandlers } from './time.js';
import type { FreezeEnvironment, Handlers } from './types.js';

export interface JoinedHandlers {
  readonly handlers: Handlers;
  /** Closes the files that are still open. Throws what closing throws. */
  close(): Promise<void>;
}

/** @param mayWrite whether the policy lets a channel write files */
export function joinHandlers(
  sources: Sources,
  freezing: FreezeEnvironment,
  mayWrite: (context: ChannelContext) => boolean,
): JoinedHandlers {
  const files = fileHandlers({ ...sources, mayWrite });
  return {
    handlers: {
      ...fsfreezeHandlers(freezing),
      ...bridgeHandlers(freezing),
      ...filesystemHandlers(sources),
      ...systemHandlers(),
      ...files.handlers,
      ...execHandlers(sources),
      ...storageHandlers(sources),
      ...statisticsHandlers(sources),
      ...hardwareHandlers(sources),
      ...networkHandlers(sources),
      ...accountHandlers(sources),
      ...timeHandlers(sources),
      ...powerHandlers(sources),
    },
    close: () => files.close(),
  };
}
