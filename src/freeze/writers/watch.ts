// Watches the writers' folders, so that a bad hook is told of when it is dropped in, and not at three in the night,
// when it refuses the backup. bridge-writers and every session look at the folders themselves: what they say is never
// older than the question. The one place of chokidar. Keeps no process alive, polls nothing, and is quiet while nothing
// changes.
import { watch, type FSWatcher } from 'chokidar';
import type { WriterListing } from '../../consistency.js';
import { findWriters, listing, type WriterFolder } from './folders.js';

export interface WriterWatchOptions {
  readonly folders: readonly WriterFolder[];
  readonly owner?: number;
  /** Called with what changed: each writer that is new, or whose problem is. Not for what was there at the start. */
  readonly onChange: (writer: WriterListing) => void;
  /** Called if watching fails (no inotify watches left): then nothing more will be told. */
  readonly onError: (error: unknown) => void;
  /** While this says true nothing is read: a folder may lie on a frozen filesystem. */
  readonly paused?: () => boolean;
}

/** A package manager writes, then changes owner and mode: judge when it has settled. */
const SETTLE_MS = 500;

/** Watches until closed. Folders that are not there yet are waited for. */
export function watchWriters(options: WriterWatchOptions): { close(): Promise<void> } {
  const { folders, onChange, onError, paused = () => false } = options;
  const list = (): Map<string, WriterListing> =>
    new Map(
      findWriters(folders, options.owner === undefined ? {} : { owner: options.owner }).map((writer) => [
        writer.path,
        listing(writer),
      ]),
    );
  let known = list();
  let timer: NodeJS.Timeout | undefined;
  const look = (): void => {
    if (paused()) {
      later();
      return;
    }
    const now = list();
    for (const [path, writer] of now) {
      const before = known.get(path);
      if (before === undefined || before.problem !== writer.problem) onChange(writer);
    }
    known = now;
  };
  const later = (): void => {
    clearTimeout(timer);
    timer = setTimeout(look, SETTLE_MS);
    timer.unref();
  };
  // Neither files (opened by nobody here) nor what lies deeper: names, modes and owners are all that matters.
  const watcher: FSWatcher = watch(
    folders.map(({ path }) => path),
    { persistent: false, ignoreInitial: true, depth: 0, usePolling: false, atomic: false, followSymlinks: true },
  );
  watcher.on('all', later);
  watcher.on('error', onError);
  return {
    async close() {
      clearTimeout(timer);
      await watcher.close();
    },
  };
}
