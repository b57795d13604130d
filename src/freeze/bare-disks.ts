// Disks of the cut without a mounted filesystem: swap is no data; any other is held only if nothing was written to it.
import { readFileSync, realpathSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { DiskOfCut } from './plan.js';
import type { DiskFacts } from './verdict.js';
import { readWriteCount, type WriteCount } from './write-counters.js';

export class BareDisks {
  readonly #disks: readonly DiskOfCut[] | undefined;
  readonly #sysRoot: string;
  readonly #swapDisks: ReadonlySet<string>;
  #before: ReadonlyMap<string, WriteCount | undefined> = new Map();
  #after: ReadonlyMap<string, WriteCount | undefined> | undefined;

  constructor(disks: readonly DiskOfCut[] | undefined, sysRoot: string, swapsPath = '/proc/swaps') {
    this.#disks = disks;
    this.#sysRoot = sysRoot;
    this.#swapDisks = swapDisks(sysRoot, swapsPath);
  }

  /** Reads the write counters: after the last sync. */
  start(): void {
    this.#before = this.#counts();
  }

  /** Reads them again: after the last FITHAW. */
  finish(): void {
    this.#after = this.#counts();
  }

  facts(): readonly DiskFacts[] | undefined {
    return this.#disks?.map(({ label, disks }) => ({
      label,
      devs: disks.map(({ dev }) => dev),
      bare: disks.every(({ name }) => this.#swapDisks.has(name))
        ? 'swap'
        : disks.every(({ name }) => this.#unwritten(name))
          ? 'unwritten'
          : 'written',
    }));
  }

  #unwritten(name: string): boolean {
    const before = this.#before.get(name);
    return before !== undefined && (this.#after === undefined || this.#after.get(name) === before);
  }

  #counts(): ReadonlyMap<string, WriteCount | undefined> {
    const names = (this.#disks ?? []).flatMap(({ disks }) => disks.map(({ name }) => name));
    return new Map(names.map((name) => [name, readWriteCount(this.#sysRoot, name)]));
  }
}

/** Kernel names of whole disks that carry an active swap area, themselves or on a partition. */
function swapDisks(sysRoot: string, swapsPath: string): ReadonlySet<string> {
  try {
    const sources = readFileSync(swapsPath, 'utf8').split('\n').slice(1);
    return new Set(
      sources.flatMap((line) => {
        const source = line.split(/\s/)[0];
        if (source?.startsWith('/dev/') !== true) return [];
        const device = realpathSync(join(sysRoot, 'class/block', basename(realpathSync(source))));
        return [basename(device), basename(join(device, '..'))];
      }),
    );
  } catch {
    return new Set();
  }
}
