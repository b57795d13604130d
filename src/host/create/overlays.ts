// The layers that take the writes after the cut: their files, made and checked before anything in the guest is held.
// Every step registers its undo at once. Facts 4.1: the file names its base, so that a killed VM finds it again.
import { chmod, chown, open, rm, stat, statfs } from 'node:fs/promises';
import { dirname, parse, join } from 'node:path';
import { CutError, UsageError } from '../../errors.js';
import type { VmDisk } from '../../qmp/block-graph.js';
import type { Reverter } from '../../reverter.js';
import { diskName } from '../vm/disk-choice.js';
import { exists, syncPath } from '../images/durable-file.js';
import { describeHolders, holdersOf, imageInfo, makeOverlay } from '../images/image-file.js';
import { isErrno } from '../errno.js';
import { overlayFailure, type Overlay } from '../vm/overlay.js';

/** Below this much free space per overlay the cut is refused: the guest would soon stop with ENOSPC. */
export const defaultMinFreeBytes = 64 * 1024 * 1024;

/** Where each overlay will be. `id` is the set's: node names are at most 31 characters and must not meet again. */
export function planOverlays(disks: readonly VmDisk[], set: string, id: string, dir: string | undefined): Overlay[] {
  const taken = new Set<string>();
  return disks.map((disk, index) => {
    const folder = dir ?? dirname(disk.file);
    if (folder.startsWith('/dev')) {
      throw new UsageError(
        'E_OVERLAY_DIR',
        `disk ${diskName(disk)} is a device: say with --overlay-dir where its overlay goes`,
      );
    }
    const { name } = parse(disk.file);
    // Two images of one name in different folders may share an overlay folder.
    let file = join(folder, `${name}.${set}.qcow2`);
    if (taken.has(file)) file = join(folder, `${name}-${index}.${set}.qcow2`);
    taken.add(file);
    return { disk, file, node: `fsb-${id}-${index}` };
  });
}

/** Throws a CutError if a filesystem has too little space, a UsageError if a file is already there. */
export async function checkRoom(overlays: readonly Overlay[], minFreeBytes: number): Promise<void> {
  const folders = new Map<string, number>();
  for (const { file } of overlays) {
    if (await exists(file)) throw taken(file);
    folders.set(dirname(file), (folders.get(dirname(file)) ?? 0) + 1);
  }
  for (const [folder, count] of folders) {
    let free: number;
    try {
      const { bavail, bsize } = await statfs(folder);
      free = bavail * bsize;
    } catch (cause) {
      throw new UsageError('E_OVERLAY_DIR', `cannot use ${folder} for overlays`, { cause });
    }
    const needed = count * minFreeBytes;
    if (free >= needed) continue;
    throw new CutError(
      'E_NO_SPACE',
      `no space for ${count} overlays in ${folder}: ${mib(free)} free, expected ${mib(needed)}`,
      {
        facts: { folder, free, needed },
      },
    );
  }
}

/** Makes the overlays' files. Throws a CutError that names the disk. */
export async function makeOverlays(
  overlays: readonly Overlay[],
  reverter: Reverter,
  signal: AbortSignal,
  onProgress: (done: number) => void,
): Promise<void> {
  for (const [index, overlay] of overlays.entries()) {
    signal.throwIfAborted();
    onProgress(index);
    try {
      await makeFile(overlay, reverter, signal);
    } catch (cause) {
      signal.throwIfAborted();
      if (cause instanceof UsageError) throw cause;
      throw overlayFailure(overlay, cause);
    }
  }
}

async function makeFile({ disk, file }: Overlay, reverter: Reverter, signal: AbortSignal): Promise<void> {
  // qemu-img overwrites: the name is taken first, by us alone.
  try {
    await (await open(file, 'wx', 0o600)).close();
  } catch (error) {
    if (isErrno(error, 'EEXIST')) throw taken(file);
    throw error;
  }
  reverter.push(`overlay file ${file}`, async () => {
    const holders = await holdersOf(file);
    if (holders.length > 0) throw new Error(`it is in use by ${describeHolders(holders)}`);
    await rm(file, { force: true });
  });
  const { file: base, format, virtualSize } = disk;
  await makeOverlay({ file, base, baseFormat: format, virtualSize }, signal);
  const info = await imageInfo(file);
  if (info['virtual-size'] !== virtualSize) {
    throw new CutError('E_OVERLAY', `${file} has ${info['virtual-size']} bytes, expected ${virtualSize}`);
  }
  if (info['backing-filename'] !== base || info['backing-filename-format'] !== format) {
    throw new CutError(
      'E_OVERLAY',
      `${file} names ${info['backing-filename'] ?? 'no base'}, expected ${base} (${format})`,
    );
  }
  await likeBase(file, base);
  await syncPath(file);
  await syncPath(dirname(file));
}

// QEMU may run as a user of its own: the overlay gets the base's owner and permissions.
async function likeBase(file: string, base: string): Promise<void> {
  const { uid, gid, mode } = await stat(base);
  const own = await stat(file);
  if (own.uid !== uid || own.gid !== gid) await chown(file, uid, gid);
  await chmod(file, mode & 0o666);
}

function taken(file: string): UsageError {
  return new UsageError('E_NAME_TAKEN', `${file} is already there: choose another --name, or remove it`);
}

function mib(bytes: number): string {
  return `${Math.floor(bytes / 1024 / 1024)} MiB`;
}
