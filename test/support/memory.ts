// Measures the memory that a process holds, for tests of how much a hostile peer can make it hold.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** Garbage apart: after a collection. */
export function heldBytes(): number {
  // Buffers that are garbage give their memory back at the next collection.
  collect();
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/** The most that this process has held since it began. */
export const peakBytes = (): number => process.resourceUsage().maxRSS * 1024;

export const MiB = 1024 * 1024;

/** The most that was held whenever `look` was called, beyond what was held before. */
export interface MemoryWatch {
  readonly look: () => void;
  readonly mostBytes: number;
}

export function watchMemory(): MemoryWatch {
  const before = heldBytes();
  let most = 0;
  return {
    look() {
      most = Math.max(most, heldBytes() - before);
    },
    get mostBytes() {
      return most;
    },
  };
}
