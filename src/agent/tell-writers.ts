// Tells the log of the writers: those there are when the agent starts, and each that is dropped in later, so that a
// bad hook is told of at once and not when it refuses the backup.
import type { Coordinator, WriterListing } from '../consistency.js';
import { describeError } from '../errors.js';
import type { WriterFolder } from '../freeze/writers/folders.js';
import { watchWriters } from '../freeze/writers/watch.js';
import type { Logger } from '../log.js';

export interface WriterTelling {
  readonly coordinator: Pick<Coordinator, 'writers'>;
  /** Watched from now on. */
  readonly folders: readonly WriterFolder[];
  /** While true no folder is read: it may lie on a frozen filesystem. */
  readonly isFrozen: () => boolean;
  readonly log: Logger;
}

/** Tells of the writers there are, and of later ones until it is closed. Throws what the coordinator throws. */
export async function tellWriters({ coordinator, folders, isFrozen, log }: WriterTelling) {
  const tell = ({ name, path, problem }: WriterListing): void => {
    if (problem === undefined) log.info({ name, path }, 'writer found');
    else log.warn({ name, path, problem }, 'writer will not be run');
  };
  const watch = watchWriters({
    folders,
    onChange: tell,
    onError(error) {
      log.warn({ error: describeError(error) }, 'writer folders are no longer watched');
    },
    paused: isFrozen,
  });
  for (const writer of await coordinator.writers()) tell(writer);
  return watch;
}
