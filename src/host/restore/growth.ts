// How much images may grow when what differs is written to them, and whether there is room for it.
import { stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { CutError } from '../../errors.js';
import { runQemuImg, type TaskLimits } from '../images/qemu-img-task.js';

export interface GrowingImage {
  readonly image: string;
  /** Bytes that differ. */
  readonly differing: number;
  readonly virtualSize: number;
}

/** For the tables of an image, and what else it writes beside the data. */
const SLACK = 1 / 64;

/** At most (bytes): what has a place already is written over, and no image holds much more than its disk. */
export function growth({ differing, virtualSize }: GrowingImage, allocated: number): number {
  return Math.ceil(Math.min(differing, Math.max(0, virtualSize - allocated)) * (1 + SLACK));
}

/** What an image of that format takes that holds all of another, which may be a chain (bytes). */
export async function neededFor(source: string, format: string, limits: TaskLimits): Promise<number> {
  const { stdout } = await runQemuImg(['measure', '--output=json', '-O', format, source], limits);
  return Number((JSON.parse(stdout) as { required?: unknown }).required);
}

/** Throws a CutError `E_NO_SPACE` if the images would meet the end of their filesystem in the middle of a write. */
export async function checkRoom(images: readonly GrowingImage[]): Promise<void> {
  const needed = new Map<number, { readonly path: string; readonly bytes: number }>();
  for (const each of images) {
    const { dev, blocks } = await stat(each.image);
    const before = needed.get(dev)?.bytes ?? 0;
    needed.set(dev, { path: dirname(each.image), bytes: before + growth(each, blocks * 512) });
  }
  for (const { path, bytes } of needed.values()) {
    const { bavail, bsize } = await statfs(path);
    if (bavail * bsize >= bytes) continue;
    const message = `no space in ${path}: ${bavail * bsize} bytes free, the images may grow by ${bytes}; nothing was restored`;
    throw new CutError('E_NO_SPACE', message);
  }
}
