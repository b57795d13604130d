// Finds the disks that a filesystem lies on: follows sysfs from the block device under a superblock through partitions,
// device-mapper, md, bcache and loop files down to whole disks, and says what must freeze before what. Sysfs itself:
// block-devices.ts. What lies under a file: backing-file.ts.
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { backingFile } from './backing-file.js';
import { BlockDevices, type Disk } from './block-devices.js';
import { Ext4Journals } from './ext4-journals.js';
import { namesIn, readPath, realPath } from './kernel-values.js';
import type { Filesystem, MountTable } from './mounts.js';
import { decodeOctal } from './path-text.js';
import { atOnce, type Work } from './turns.js';

export type { Disk } from './block-devices.js';

/** Everything under one filesystem. */
export interface DiskChain {
  /** Kernel names of the block devices the superblock lies on (`vda1`, `dm-0`); several for btrfs. */
  readonly devices: readonly string[];
  /** The whole disks at the end, each once. */
  readonly disks: readonly Disk[];
  /** Every end is a physical or virtual disk of this machine, with no file between: it may freeze beside others. */
  readonly direct: boolean;
  /** It has its journal on another device, and which one cannot be told: `devices` has not all it lies on. */
  readonly lacksJournal?: true;
  /** Every end of the chain is understood; if not, the filesystem may lie on any disk. */
  readonly understood: boolean;
  /** Files behind loop devices on the way, outermost first. */
  readonly files: readonly string[];
  /** Filesystems that must freeze after this one, because its blocks are files on them. */
  readonly restsOn: readonly Filesystem[];
}

export interface DiskLookup {
  chainOf(filesystem: Filesystem): DiskChain;
  /** All whole disks of this machine that end chains: no loop, device-mapper, md, zram and the like. */
  disks(): readonly Disk[];
  /** Finds in turns what the other two will be asked of these filesystems: for each, dozens of files are read. */
  prepare(filesystems: readonly Filesystem[]): Work<void>;
}

interface Roots {
  readonly sysRoot?: string;
  readonly udevRoot?: string;
  readonly procRoot?: string | undefined;
}

/** Looks at the disks as they are now. The table is needed to find what lies under a loop file. */
export function createDiskLookup(
  table: MountTable,
  { sysRoot = '/sys', udevRoot = '/run/udev', procRoot = '/proc' }: Roots = {},
): DiskLookup {
  const sys = new BlockDevices(sysRoot, udevRoot, procRoot);
  const journals = new Ext4Journals(sys, { sysRoot, procRoot }, table);
  const chains = new Map<Filesystem, DiskChain>();
  let all: readonly Disk[] | undefined;

  const chainOf = (filesystem: Filesystem, below: readonly Filesystem[] = []): DiskChain => {
    const known = chains.get(filesystem);
    if (known !== undefined) return known;
    const walk: Walk = { disks: new Map(), files: [], restsOn: new Set(), direct: true, understood: true };
    const devices = devicesUnder(filesystem, sys);
    if (devices.length === 0) walk.direct = walk.understood = false;
    const journal = journals.of(filesystem);
    if (journal === 'unknown') walk.direct = walk.understood = false;
    else if (journal !== undefined) devices.push(...sys.named(journal));
    const path = [...below, filesystem];
    for (const device of devices) descend(device, walk, path, new Set());
    const chain: DiskChain = {
      devices: devices.map((device) => basename(device)),
      disks: [...walk.disks.values()],
      direct: walk.direct,
      ...(journal === 'unknown' ? { lacksJournal: true } : {}),
      understood: walk.understood,
      files: walk.files,
      restsOn: [...walk.restsOn],
    };
    chains.set(filesystem, chain);
    return chain;
  };

  const descend = (device: string, walk: Walk, path: readonly Filesystem[], seen: Set<string>): void => {
    if (seen.has(device)) return;
    seen.add(device);
    const slaves = namesIn(join(device, 'slaves'));
    if (existsSync(join(device, 'partition'))) descend(join(device, '..'), walk, path, seen);
    else if (slaves.length > 0) {
      for (const slave of slaves) descend(realPath(join(device, 'slaves', slave)) ?? '', walk, path, seen);
    } else if (existsSync(join(device, 'loop'))) descendFile(device, walk, path);
    else {
      const kind = sys.endKind(device);
      if (kind === 'disk') {
        const disk = sys.disk(device);
        walk.disks.set(disk.name, disk);
      } else walk.direct = false;
      if (kind === 'unknown') walk.understood = false;
    }
  };

  const descendFile = (device: string, walk: Walk, path: readonly Filesystem[]): void => {
    walk.direct = false;
    const file = readPath(join(device, 'loop', 'backing_file'));
    if (file === undefined) {
      walk.understood = false;
      return;
    }
    walk.files.push(file);
    const { holders, others, understood, isNode } = backingFile(file, table);
    if (!understood) walk.understood = false;
    if (isNode) {
      const node = sys.byName(file);
      if (node === undefined) walk.understood = false;
      else descend(node, walk, path, new Set([device]));
    }
    for (const other of others) if (!path.includes(other)) walk.restsOn.add(other);
    for (const under of holders) {
      if (path.includes(under)) walk.understood = false;
      else restOn(under, walk, path);
    }
  };

  const restOn = (under: Filesystem, walk: Walk, path: readonly Filesystem[]): void => {
    walk.restsOn.add(under);
    const chain = chainOf(under, path);
    for (const disk of chain.disks) walk.disks.set(disk.name, disk);
    for (const next of chain.restsOn) walk.restsOn.add(next);
    walk.files.push(...chain.files);
    walk.understood &&= chain.understood;
  };

  return {
    chainOf: (filesystem) => chainOf(filesystem),
    disks: () => (all ??= atOnce(sys.allDisks())),
    *prepare(filesystems) {
      all ??= yield* sys.allDisks();
      for (const filesystem of filesystems) {
        yield;
        chainOf(filesystem);
      }
    },
  };
}

/** What was found so far on the way down from one filesystem. */
interface Walk {
  readonly disks: Map<string, Disk>;
  readonly files: string[];
  readonly restsOn: Set<Filesystem>;
  direct: boolean;
  understood: boolean;
}

/** Sysfs folders of the block devices under a superblock. */
function devicesUnder(filesystem: Filesystem, sys: BlockDevices): string[] {
  if (filesystem.device.startsWith('0:')) {
    // bcachefs names all its devices.
    if (filesystem.type !== 'btrfs') return filesystem.source.split(':').flatMap((source) => sys.named(source));
    const [device] = sys.named(filesystem.source);
    return device === undefined ? [] : sys.btrfsDevices(device);
  }
  const device = sys.byNumber(filesystem.device);
  // XFS may keep its log and its real-time data on devices of their own, reiserfs its journal. Ext4 does not say so in
  // its options: ext4-journals.ts.
  const extra = (filesystem.mounts[0]?.superOptions ?? []).flatMap((option) => {
    const path = /^(?:logdev|rtdev|jdev)=(.+)$/.exec(option)?.[1];
    return path === undefined ? [] : sys.named(decodeOctal(path));
  });
  return device === undefined ? [] : [device, ...extra];
}
