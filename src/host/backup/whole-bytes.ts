// How much a backup of a disk may come to, before it is made. The images are in use: QEMU has in memory what was allocated last,
// and writes it to their tables when its guest flushes.
import { stat } from 'node:fs/promises';
import * as v from 'valibot';
import { Deadline } from '../../deadline.js';
import type { VmDisk } from '../../qmp/block-graph.js';
import { runQemuImg } from '../images/qemu-img-task.js';
import { referencesOf } from '../images/references.js';

/** It reads tables alone. */
const LIMIT_MS = 60_000;
/** QEMU copies so much at once (bytes), from wherever the last piece ended, and leaves it out if all of it is zero. */
const PIECE_BYTES = 1024 * 1024;

/** The unit of stat(2), whatever the filesystem's blocks. */
const BLOCK_BYTES = 512;

const measureSchema = v.object({ required: v.pipe(v.number(), v.safeInteger()) });
const mapSchema = v.array(v.object({ start: v.number(), length: v.number(), data: v.boolean() }));

/**
 * Bytes that an image of the whole disk may have; the disk's own size where qemu-img cannot tell. `leavesZeroesOut`: also where
 * the image does not say that it is zero. Throws the signal's reason.
 */
export async function wholeBytes(
  { file, format, name, below, virtualSize, dataFiles }: VmDisk,
  leavesZeroesOut: boolean,
  signal: AbortSignal,
): Promise<number> {
  const limits = { deadline: new Deadline(LIMIT_MS), signal };
  try {
    // The table of such an image says of all of it that it is there: only the raw file tells where it has holes.
    const [data] = leavesZeroesOut && below.length === 0 && dataFiles.length === 1 ? dataFiles : [];
    if (data?.startsWith('/') === true && (await referencesOf(file)).isDataRaw) {
      const { stdout } = await runQemuImg(['map', '-U', '--output=json', '-f', 'raw', data], limits);
      return spread(v.parse(mapSchema, JSON.parse(stdout)), virtualSize);
    }
    const image = name.startsWith('json:') ? [name] : ['-f', format, file];
    const { stdout } = await runQemuImg(['measure', '-U', '--output=json', '-O', 'qcow2', ...image], limits);
    return v.parse(measureSchema, JSON.parse(stdout)).required;
  } catch {
    signal.throwIfAborted();
    return virtualSize;
  }
}

/**
 * The same for what changed since a run. The file holds what its tables do not tell of yet; all of what was reserved for it,
 * too, and so this is no bound of a full backup. Throws the signal's reason.
 */
export async function changedBytes(
  disk: VmDisk,
  changed: number,
  leavesZeroesOut: boolean,
  signal: AbortSignal,
): Promise<number> {
  const { blocks } = await stat(disk.dataFiles[0] ?? disk.file).catch(() => ({ blocks: 0 }));
  return Math.min(changed, Math.max(await wholeBytes(disk, leavesZeroesOut, signal), blocks * BLOCK_BYTES));
}

/** What pieces may hold of which any part is data. `extents`: in their order. */
export function spread(extents: v.InferOutput<typeof mapSchema>, size: number): number {
  let bytes = 0;
  let end = 0;
  for (const { start, length, data } of extents) {
    if (!data) continue;
    const from = Math.max(end, start - PIECE_BYTES);
    end = Math.min(size, start + length + PIECE_BYTES);
    bytes += Math.max(0, end - from);
  }
  return bytes;
}
