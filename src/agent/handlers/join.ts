// The families that need nothing of the freeze path, joined: what qemu-ga does beside freezing.
import type { ChannelContext } from '../origin.js';
import type { Sources } from '../kernel-files.js';
import { accountHandlers } from './accounts.js';
import { execHandlers } from './exec.js';
import { fileHandlers } from './files.js';
import { hardwareHandlers } from './hardware.js';
import { networkHandlers } from './network.js';
import { powerHandlers } from './power.js';
import { statisticsHandlers } from './statistics.js';
import { storageHandlers } from './storage.js';
import { timeHandlers } from './time.js';

/** @param mayWrite whether the policy lets a channel write files */
export function guestHandlers(sources: Sources, mayWrite: (context: ChannelContext) => boolean) {
  const files = fileHandlers({ ...sources, mayWrite });
  return {
    handlers: {
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
    /** Closes the files that are still open. Throws what closing throws. */
    close: () => files.close(),
  };
}
