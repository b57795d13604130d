// Compares two looks at the machine: the plan may be seconds old when the first FIFREEZE is due. Pure but for a look at
// the writers' files. When it is looked: second-look.ts. What a change means for the level: verdict.ts.
import { statSync } from 'node:fs';
import { join } from 'node:path';
import type { FreezePlan, PlannedFilesystem } from './plan.js';
import { namesIn } from '../../linux/kernel-values.js';
import { isIgnoredName, type WriterFolder } from '../writers/folders.js';

export interface Change {
  readonly what: string;
  readonly reason: string;
}

/** Filesystems of the cut that came or went between two plans of the same request. */
export function filesystemChanges(then: FreezePlan, now: FreezePlan): readonly Change[] {
  const before = new Map(then.filesystems.map((planned) => [keyOf(planned), planned]));
  const after = new Map(now.filesystems.map((planned) => [keyOf(planned), planned]));
  const came = [...after].flatMap(([key, planned]): Change[] => {
    if (!planned.concerned) return [];
    const known = before.get(key);
    const what = nameOf(planned);
    if (known === undefined) return [{ what, reason: 'was mounted after the session was planned' }];
    if (known.concerned) return planned.missingDisks.length > known.missingDisks.length ? [grew(what)] : [];
    const reason = known.filesystem.readOnly ? 'became writable' : 'came to lie on a disk of the cut';
    return [{ what, reason: `${reason} after the session was planned` }];
  });
  const went = [...before].flatMap(([key, planned]): Change[] =>
    planned.concerned && !after.has(key)
      ? [{ what: nameOf(planned), reason: 'was unmounted after the session was planned' }]
      : [],
  );
  return [...came, ...went];
}

function grew(what: string): Change {
  return { what, reason: 'came to lie on a disk that is not in the cut' };
}

function keyOf({ filesystem }: PlannedFilesystem): string {
  const { device, type, source } = filesystem;
  return device.startsWith('0:') ? `${type} ${source}` : `${type} ${device}`;
}

function nameOf({ filesystem: { mountpoint, type } }: PlannedFilesystem): string {
  return `${mountpoint} (${type})`;
}

/** By path, a text that changes with the file's content, owner or mode. Names that are no writer's are left out. */
export type WriterFiles = ReadonlyMap<string, string>;

/** The files in the writers' folders as they are now. Never throws. */
export function writerFiles(folders: readonly WriterFolder[]): WriterFiles {
  return new Map(
    folders.flatMap(({ path: folder }) =>
      namesIn(folder)
        .filter((name) => !isIgnoredName(name))
        .map((name): [string, string] => [join(folder, name), stateOf(join(folder, name))]),
    ),
  );
}

/** Paths in `now` that are new or other than in `then`. A file that is gone cannot be run, and shows by itself. */
export function changedWriters(then: WriterFiles, now: WriterFiles): readonly string[] {
  return [...now].flatMap(([path, state]) => (then.get(path) === state ? [] : [path]));
}

function stateOf(path: string): string {
  try {
    const { dev, ino, ctimeNs, mode, uid } = statSync(path, { bigint: true });
    return [dev, ino, ctimeNs, mode, uid].join(' ');
  } catch {
    return '';
  }
}
