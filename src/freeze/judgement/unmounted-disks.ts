// What lies on the disks of the cut beside mounted filesystems: partitions, logical volumes and whole disks that nobody
// mounted here. Swap is no data; any other is held only if nothing was written to it from the last sync to the thaw.
// Each is counted by itself: neither a swap partition nor a filesystem speaks for the rest of its disk.
import { readdirSync, readFileSync, realpathSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { DiskOfCut, FreezePlan } from './plan.js';
import type { DiskFacts } from './verdict.js';
import { readWriteCount, type WriteCount } from '../../linux/write-counters.js';

interface Places {
  readonly sysRoot: string;
  readonly swapsPath: string;
}

interface BareDisk {
  readonly disk: DiskOfCut;
  /** Kernel names of the parts under no filesystem of the mount table. */
  readonly parts: readonly string[];
}

export class BareDisks {
  readonly #disks: readonly BareDisk[] | undefined;
  readonly #places: Places;
  readonly #swaps: ReadonlySet<string>;
  #before: ReadonlyMap<string, WriteCount | undefined> = new Map();
  #after:
    { readonly counts: ReadonlyMap<string, WriteCount | undefined>; readonly swaps: ReadonlySet<string> } | undefined;

  constructor({ disks, filesystems }: FreezePlan, places: Places) {
    this.#places = places;
    const mounted = new Set(filesystems.flatMap(({ chain }) => chain.devices));
    this.#disks = disks?.map((disk) => ({
      disk,
      parts: disk.disks.flatMap(({ name }) => leaves(places.sysRoot, name, mounted)),
    }));
    this.#swaps = disks === undefined ? new Set() : activeSwaps(places);
  }

  /** Reads the write counters: after the last sync. */
  start(): void {
    this.#before = this.#counts();
  }

  /** Reads them again: after the last FITHAW. */
  finish(): void {
    if (this.#disks !== undefined) this.#after = { counts: this.#counts(), swaps: activeSwaps(this.#places) };
  }

  facts(): readonly DiskFacts[] | undefined {
    return this.#disks?.map(({ disk: { label, disks }, parts }) => {
      const swap = parts.filter((name) => this.#isSwap(name));
      const others = parts.filter((name) => !swap.includes(name));
      return {
        label,
        devs: disks.map(({ dev }) => dev),
        swap: swap.map(devOf),
        unwritten: others.filter((name) => this.#unwritten(name)).map(devOf),
        written: others.filter((name) => !this.#unwritten(name)).map(devOf),
      };
    });
  }

  // What was swap for a part of the time may have been anything for the rest.
  #isSwap(name: string): boolean {
    return this.#swaps.has(name) && this.#after?.swaps.has(name) !== false;
  }

  #unwritten(name: string): boolean {
    const before = this.#before.get(name);
    return before !== undefined && (this.#after === undefined || this.#after.counts.get(name) === before);
  }

  #counts(): ReadonlyMap<string, WriteCount | undefined> {
    const names = (this.#disks ?? []).flatMap(({ parts }) => parts);
    const { sysRoot } = this.#places;
    return new Map(
      names.map((name) => [name, isReadOnly(sysRoot, name) ? 'read-only' : readWriteCount(sysRoot, name)]),
    );
  }
}

/**
 * Kernel names of what a disk is divided into, and nothing else lies on: partitions, device-mapper and md devices, or
 * the disk itself. Without those that a filesystem lies on.
 */
function leaves(sysRoot: string, disk: string, mounted: ReadonlySet<string>): string[] {
  const seen = new Set<string>();
  const descend = (name: string): string[] => {
    if (seen.has(name) || mounted.has(name)) return [];
    seen.add(name);
    const directory = join(sysRoot, 'class/block', name);
    const entries = list(directory);
    const parts = entries.filter((entry) => isPartition(sysRoot, entry, name));
    const above = [...parts, ...list(join(directory, 'holders'))];
    return above.length === 0 ? [name] : above.flatMap(descend);
  };
  return descend(disk.replaceAll('/', '!'));
}

// A partition is a directory in its disk's, with the disk's name before its own.
function isPartition(sysRoot: string, entry: string, disk: string): boolean {
  return entry.startsWith(disk) && list(join(sysRoot, 'class/block', entry)).includes('partition');
}

function list(path: string): string[] {
  try {
    return readdirSync(path).sort();
  } catch {
    return [];
  }
}

// Nothing can be written through it: LVM's own node of a thin pool is like that, and before Linux 6.4 device-mapper says
// that it does not count (queue/iostats 0).
function isReadOnly(sysRoot: string, name: string): boolean {
  try {
    return readFileSync(join(sysRoot, 'class/block', name, 'ro'), 'latin1').trim() === '1';
  } catch {
    return false;
  }
}

function devOf(name: string): string {
  return `/dev/${name.replaceAll('!', '/')}`;
}

/** Kernel names of the devices that are an active swap area. */
function activeSwaps({ swapsPath }: Places): ReadonlySet<string> {
  try {
    const sources = readFileSync(swapsPath, 'utf8').split('\n').slice(1);
    return new Set(
      sources.flatMap((line) => {
        const source = line.split(/\s/)[0];
        return source?.startsWith('/dev/') === true ? [basename(realPath(source))] : [];
      }),
    );
  } catch {
    return new Set();
  }
}

// The kernel names a device-mapper swap by its own node; a link is of whoever switched it on.
function realPath(path: string): string {
  try {
    return realpathSync.native(path);
  } catch {
    return path;
  }
}
