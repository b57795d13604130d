// Finds what lies on the disks of the cut beside mounted filesystems: partitions, logical volumes and whole disks that
// nobody mounted here. Swap is no data; any other part is held only if nothing was written to it from the last sync to
// the thaw. Each part is counted by itself: neither a swap partition nor a filesystem speaks for the rest of its disk.
import { basename, join } from 'node:path';
import type { DiskOfCut, FreezePlan } from './plan.js';
import type { DiskFacts } from './verdict.js';
import { kernelName, nodeNamed } from '../../linux/block-tree.js';
import { namesIn, readText, realPath } from '../../linux/kernel-values.js';
import { readWriteCount, type WriteCount } from '../../linux/write-counters.js';

interface Places {
  readonly sysRoot: string;
  readonly swapsPath: string;
}

/** By kernel name; undefined where there is no counter to trust. */
type WriteCounts = ReadonlyMap<string, WriteCount | undefined>;

interface UnmountedDisk {
  readonly disk: DiskOfCut;
  /** Kernel names of the parts under no filesystem of the mount table. */
  readonly parts: readonly string[];
}

export class UnmountedDisks {
  readonly #disks: readonly UnmountedDisk[] | undefined;
  readonly #places: Places;
  readonly #swaps: ReadonlySet<string>;
  #before: WriteCounts = new Map();
  #after: { readonly counts: WriteCounts; readonly swaps: ReadonlySet<string> } | undefined;

  constructor({ disks, filesystems }: FreezePlan, places: Places) {
    this.#places = places;
    const mounted = new Set(filesystems.flatMap(({ chain }) => chain.devices));
    this.#disks = disks?.map((disk) => ({
      disk,
      parts: disk.disks.flatMap(({ name }) => partsOf(places.sysRoot, name, mounted)),
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

  /** What is known so far, for each disk of the cut; undefined if the request names none. */
  facts(): readonly DiskFacts[] | undefined {
    return this.#disks?.map(({ disk: { label, disks }, parts }) => {
      const swap = parts.filter((name) => this.#isSwap(name));
      const others = parts.filter((name) => !swap.includes(name));
      return {
        label,
        devs: disks.map(({ dev }) => dev),
        swap: swap.map(nodeNamed),
        unwritten: others.filter((name) => this.#unwritten(name)).map(nodeNamed),
        written: others.filter((name) => !this.#unwritten(name)).map(nodeNamed),
      };
    });
  }

  // It must have been swap all the time: for the rest it may have been anything.
  #isSwap(name: string): boolean {
    return this.#swaps.has(name) && this.#after?.swaps.has(name) !== false;
  }

  #unwritten(name: string): boolean {
    const before = this.#before.get(name);
    return before !== undefined && (this.#after === undefined || this.#after.counts.get(name) === before);
  }

  #counts(): WriteCounts {
    const names = (this.#disks ?? []).flatMap(({ parts }) => parts);
    const { sysRoot } = this.#places;
    return new Map(
      names.map((name) => [name, isReadOnly(sysRoot, name) ? 'read-only' : readWriteCount(sysRoot, name)]),
    );
  }
}

/**
 * Kernel names of the parts of a disk that nothing else lies on: partitions, device-mapper and md devices, or the disk
 * itself. Those that a filesystem lies on are left out.
 */
function partsOf(sysRoot: string, disk: string, mounted: ReadonlySet<string>): string[] {
  const seen = new Set<string>();
  const descend = (name: string): string[] => {
    if (seen.has(name) || mounted.has(name)) return [];
    seen.add(name);
    const folder = join(sysRoot, 'class/block', name);
    const partitions = namesIn(folder).filter((entry) => isPartition(sysRoot, entry, name));
    const above = [...partitions, ...namesIn(join(folder, 'holders'))];
    return above.length === 0 ? [name] : above.flatMap(descend);
  };
  return descend(kernelName(disk));
}

// A partition is a folder in its disk's, with the disk's name before its own.
function isPartition(sysRoot: string, entry: string, disk: string): boolean {
  return entry.startsWith(disk) && namesIn(join(sysRoot, 'class/block', entry)).includes('partition');
}

// Nothing can be written through it, so it needs no counter: LVM's own node of a thin pool is like that, and before
// Linux 6.4 device-mapper says that it does not count (queue/iostats 0).
function isReadOnly(sysRoot: string, name: string): boolean {
  return readText(join(sysRoot, 'class/block', name, 'ro'))?.trim() === '1';
}

/** Kernel names of the devices that are an active swap area. */
function activeSwaps({ swapsPath }: Places): ReadonlySet<string> {
  const lines = readText(swapsPath)?.split('\n').slice(1) ?? [];
  const sources = lines.flatMap((line) => line.split(/\s/)[0] ?? []).filter((source) => source.startsWith('/dev/'));
  // The kernel names a device-mapper swap by its own node; a link is of whoever switched it on.
  return new Set(sources.map((source) => basename(realPath(source) ?? source)));
}
