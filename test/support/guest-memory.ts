// Measures what a process of a guest holds in memory.
import type { Guest } from '../../src/testing/index.js';

export interface GuestMemory {
  readonly rssMiB: number;
  /** Nobody else's, and not on a disk either. */
  readonly dirtyMiB: number;
}

/** The sum over all of them. Throws where one does not run. */
export async function memoryOf(guest: Pick<Guest, 'exec'>, pids: readonly number[]): Promise<GuestMemory> {
  let [rssMiB, dirtyMiB] = [0, 0];
  for (const pid of pids) {
    const { stdout } = await guest.exec(['/bin/cat', `/proc/${pid}/smaps_rollup`]);
    const mebibytes = (name: string): number =>
      Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(stdout)?.[1]) / 1024;
    rssMiB += mebibytes('Rss');
    dirtyMiB += mebibytes('Private_Dirty');
  }
  return { rssMiB, dirtyMiB };
}
