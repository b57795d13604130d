// Finds what a loop device's file lies on, by the name under which the kernel knows the file. The name may be old: a
// mount made later may hide the filesystem that the file is on, so everything that it may lie on is named. Pure.
import type { Mount } from './mountinfo.js';
import type { Filesystem, MountTable } from './mounts.js';
import { decodeOctal } from './path-text.js';

export interface BackingFile {
  /** Filesystems that hold the file: what lies in it lies on their disks. */
  readonly holders: readonly Filesystem[];
  /** Other filesystems that it may lie on: none of them may freeze before what lies in it. */
  readonly others: readonly Filesystem[];
  /** It lies on its holders, and nowhere else. */
  readonly understood: boolean;
  /** The path is the node of a block device. */
  readonly isNode: boolean;
}

const nowhere: BackingFile = { holders: [], others: [], understood: true, isNode: false };
const unknown: BackingFile = { ...nowhere, understood: false };

/** Overlays on overlays: container engines stack two, the kernel allows no more. */
const OVERLAYS_AT_MOST = 4;

/** `path`: as in sysfs' backing_file. Never throws. */
export function backingFile(path: string, table: MountTable): BackingFile {
  // The kernel appends this to the name of a file that was deleted while in use; the loop device lives on.
  return groundOf(path.replace(/ \(deleted\)$/, ''), table, 0);
}

function groundOf(path: string, table: MountTable, overlays: number): BackingFile {
  const mount = table.resolve(path);
  if (mount === undefined) return unknown;
  const top = onTop(path, mount, table, overlays);
  const hidden = hiddenOver(path, table).filter((filesystem) => !top.holders.includes(filesystem));
  if (hidden.length === 0) return top;
  return { ...top, others: [...top.others, ...hidden], understood: false };
}

function onTop(path: string, mount: Mount, table: MountTable, overlays: number): BackingFile {
  const filesystem = table.filesystemOf(path);
  if (filesystem !== undefined) return { ...nowhere, holders: [filesystem] };
  switch (mount.type) {
    // Memory: it lies on no disk.
    case 'tmpfs':
    case 'ramfs':
      return nowhere;
    case 'devtmpfs':
      return { ...nowhere, isNode: true };
    case 'overlay':
      return overlays < OVERLAYS_AT_MOST ? onLayers(mount, table, overlays + 1) : unknown;
    default:
      return unknown;
  }
}

// A file that is written to lies in the upper layer; one in a lower layer could only be read.
function onLayers(overlay: Mount, table: MountTable, overlays: number): BackingFile {
  const { upper, lower } = layersOf(overlay);
  if (upper === undefined && lower.length === 0) return unknown;
  const below = lower.map((path) => groundOf(path, table, overlays));
  const above = upper === undefined ? undefined : groundOf(upper, table, overlays);
  const others = [...below, ...(above === undefined ? [] : [above])].flatMap((one) => [...one.holders, ...one.others]);
  if (above !== undefined) return { ...above, others };
  return {
    ...nowhere,
    holders: below.flatMap(({ holders }) => holders),
    others,
    understood: below.every(({ understood }) => understood),
  };
}

function layersOf({ superOptions }: Mount): { readonly upper: string | undefined; readonly lower: readonly string[] } {
  const values = (name: string): string[] =>
    superOptions.filter((option) => option.startsWith(`${name}=`)).map((option) => option.slice(name.length + 1));
  // Colons separate layers, unless escaped; `lowerdir+` (6.8) has one each. Commas are octal, as in mountinfo.
  const plain = (text: string): string => decodeOctal(text).replace(/\\(.)/g, '$1');
  const lower = values('lowerdir').flatMap((list) => list.match(/(?:\\.|[^:\\])+/g) ?? []);
  const [upper] = values('upperdir');
  return {
    upper: upper === undefined ? undefined : plain(upper),
    lower: [...lower, ...values('lowerdir+')].map(plain),
  };
}

/** Filesystems that were mounted over at the path or above it, and that it may have been opened on before. */
function hiddenOver(path: string, table: MountTable): readonly Filesystem[] {
  const hidden = new Set<Filesystem>();
  const parts = path.split('/').filter(Boolean);
  for (let count = 1; count <= parts.length; count++) {
    const place = `/${parts.slice(0, count).join('/')}`;
    for (const mount of table.mountedAt(place)) {
      const filesystem = table.filesystemOfMount(mount);
      if (filesystem !== undefined && table.resolve(place) !== mount) hidden.add(filesystem);
    }
  }
  return [...hidden].sort((a, b) => a.age - b.age);
}
