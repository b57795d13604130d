// Sums a file in extents, by reading it, so that later damage is found where it is. What was just written through the kernel's
// memory is read from there: its sum says what QEMU wrote, and that the disk has it only fsync says. `b2sum` gives the same
// sum of an extent.
import { createHash } from 'node:crypto';
import { open, type FileHandle } from 'node:fs/promises';
import { unlessAborted } from '../../deadline.js';
import type { DiskFile } from './run-manifest.js';

/** Manifests stay small: two kilobytes for a gigabyte. */
const EXTENT_BYTES = 64 * 1024 * 1024;
const CHUNK_BYTES = 1024 * 1024;

export type FileSum = Omit<DiskFile, 'name' | 'encryption'>;

export interface SumOptions {
  readonly extentBytes?: number;
  /** Not read further; a multiple of the extents. */
  readonly mostBytes?: number;
  readonly signal: AbortSignal;
  /** Bytes that were read since the last call. No more are read until it returns. */
  readonly onRead?: (bytes: number) => void | Promise<void>;
}

/**
 * Throws what open(2) and read(2) do, and the signal's reason when aborted, at once: a call that hangs (the server of a hard
 * NFS mount is gone) is left where it is.
 */
export async function sumFile(file: string, options: SumOptions): Promise<FileSum> {
  const { extentBytes = EXTENT_BYTES, mostBytes = Infinity, signal, onRead } = options;
  const handle = await openFor(file, signal);
  const allocate = (): Buffer => Buffer.allocUnsafe(Math.min(CHUNK_BYTES, extentBytes));
  let [chunk, other] = [allocate(), allocate()];
  const extents: string[] = [];
  let size = 0;
  let read = 0;
  const next = (): Promise<{ bytesRead: number }> => {
    const reading = handle.read(chunk, 0, Math.min(chunk.length, extentBytes - read), size);
    // It is waited for later, or not at all.
    reading.catch(() => undefined);
    return reading;
  };
  try {
    let hash = createHash('blake2b512');
    for (let reading = next(); ;) {
      const { bytesRead } = await unlessEnded(reading, signal);
      const isEnd = bytesRead === 0;
      const summed = chunk.subarray(0, bytesRead);
      size += bytesRead;
      read += bytesRead;
      const isWhole = read === extentBytes || (isEnd && read > 0);
      if (isWhole) read = 0;
      const isLast = isEnd || size >= mostBytes;
      await onRead?.(bytesRead);
      // One is read while the other is summed.
      [chunk, other] = [other, chunk];
      if (!isLast) reading = next();
      hash.update(summed);
      if (isWhole) {
        extents.push(hash.digest('hex'));
        hash = createHash('blake2b512');
      }
      if (isLast) break;
    }
  } finally {
    // It waits for a read that is under way.
    const closing = handle.close();
    if (signal.aborted) closing.catch(() => undefined);
    else await closing;
  }
  return { size, blake2b: sumOfSums(extents), extentBytes, extents };
}

async function openFor(file: string, signal: AbortSignal): Promise<FileHandle> {
  signal.throwIfAborted();
  const opening = open(file, 'r');
  try {
    return await unlessEnded(opening, signal);
  } catch (error) {
    void opening.then(
      (handle) => handle.close(),
      () => undefined,
    );
    throw error;
  }
}

async function unlessEnded<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  try {
    return await unlessAborted(work, signal, () => new Error('interrupted'));
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  }
}

function sumOfSums(extents: readonly string[]): string {
  const hash = createHash('blake2b512');
  for (const extent of extents) hash.update(Buffer.from(extent, 'hex'));
  return hash.digest('hex');
}

/** True if the first extent, in which a LUKS file has its header, is what was recorded. Throws what sumFile does. */
export async function isBeginningSound(
  file: string,
  { extentBytes, extents }: Pick<DiskFile, 'extentBytes' | 'extents'>,
  signal: AbortSignal,
): Promise<boolean> {
  const found = await sumFile(file, { extentBytes, mostBytes: extentBytes, signal });
  return found.extents[0] === extents[0];
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
