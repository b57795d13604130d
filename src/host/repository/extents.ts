// Sums a file in extents, by reading it, so that later damage is found where it is. What was just written is read from the
// kernel's memory: its sum says what QEMU wrote, and that the disk has it only fsync says. `b2sum` gives the same sum of an
// extent.
import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import type { DiskFile } from './run-manifest.js';

/** Manifests stay small: two kilobytes for a gigabyte. */
const EXTENT_BYTES = 64 * 1024 * 1024;
const CHUNK_BYTES = 1024 * 1024;

export type FileSum = Omit<DiskFile, 'name'>;

export interface SumOptions {
  readonly extentBytes?: number;
  readonly signal: AbortSignal;
  /** Bytes that were read since the last call. */
  readonly onRead?: (bytes: number) => void;
}

/** Throws what open(2) and read(2) do, and the signal's reason when aborted. */
export async function sumFile(file: string, options: SumOptions): Promise<FileSum> {
  const { extentBytes = EXTENT_BYTES, signal, onRead } = options;
  const handle = await open(file, 'r');
  const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, extentBytes));
  const extents: string[] = [];
  let size = 0;
  try {
    for (let isEnd = false; !isEnd;) {
      const hash = createHash('blake2b512');
      let read = 0;
      while (read < extentBytes && !isEnd) {
        signal.throwIfAborted();
        const { bytesRead } = await handle.read(chunk, 0, Math.min(chunk.length, extentBytes - read), size);
        hash.update(chunk.subarray(0, bytesRead));
        read += bytesRead;
        size += bytesRead;
        onRead?.(bytesRead);
        isEnd = bytesRead === 0;
      }
      if (read > 0) extents.push(hash.digest('hex'));
    }
  } finally {
    await handle.close();
  }
  return { size, blake2b: sumOfSums(extents), extentBytes, extents };
}

function sumOfSums(extents: readonly string[]): string {
  const hash = createHash('blake2b512');
  for (const extent of extents) hash.update(Buffer.from(extent, 'hex'));
  return hash.digest('hex');
}

/** How the file differs from its record, for people; undefined if it does not. Throws what sumFile does. */
export async function whyDamaged(file: string, recorded: DiskFile, options: SumOptions): Promise<string | undefined> {
  const { extentBytes } = recorded;
  if (sumOfSums(recorded.extents) !== recorded.blake2b) return 'its record is not whole: the sums in it do not agree';
  const { size, extents } = await sumFile(file, { ...options, extentBytes });
  if (size !== recorded.size) return `it has ${size} bytes, expected ${recorded.size}`;
  const bad = recorded.extents.flatMap((sum, index) => (extents[index] === sum ? [] : [index * extentBytes]));
  if (bad.length === 0) return undefined;
  const more = bad.length > 3 ? ` and ${bad.length - 3} more` : '';
  return `${bad.length} extents of ${extentBytes} bytes are damaged (at byte ${bad.slice(0, 3).join(', ')}${more})`;
}
