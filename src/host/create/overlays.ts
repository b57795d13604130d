// Makes and checks the files of the overlays, which take the writes after the cut, before anything in the guest is
// held. Every step registers its undo at once. Each file names its base, so that a VM which was killed is started from
// it again.
import { chmod, chown, open, rm, stat, statfs } from 'node:fs/promises';
import { dirname, parse, join } from 'node:path';
import { StringDecoder } from 'node:string_decoder';
import { CutError, isErrno, UsageError } from '../../errors.js';
import type { VmDisk } from '../../qmp/block-graph.js';
import type { Reverter } from '../../reverter.js';
import { backingNameOf } from '../vm/backing-name.js';
import { diskName } from '../vm/disk-choice.js';
import { exists, syncPath } from '../images/durable-file.js';
import { describeHolders, holdersOf, imageInfo, makeOverlay } from '../images/image-file.js';
import { overlayFailure, type Overlay } from '../vm/overlay.js';

/** Below this much free space per overlay the cut is refused: the guest would soon stop with ENOSPC. */
export const DEFAULT_MIN_FREE_BYTES = 64 * 1024 * 1024;

/**
 * Where each overlay will be. `id` is the set's: file and node names that hold it never meet those of another set, nor of
 * another VM (node names are at most 31 characters). Throws a UsageError for a disk that has no place for one.
 */
export async function planOverlays(
  disks: readonly VmDisk[],
  set: string,
  id: string,
  dir: string | undefined,
): Promise<Overlay[]> {
  const taken = new Set<string>();
  const overlays: Overlay[] = [];
  for (const [index, disk] of disks.entries()) {
    if (dir === undefined && (await isDevice(disk.file))) {
      const message = `disk ${diskName(disk)} is a device: say with --overlay-dir where its overlay goes`;
      throw new UsageError('E_OVERLAY_DIR', message);
    }
    const folder = dir ?? dirname(disk.file);
    const file = freeName(folder, originalName(disk.file), `.${set}-${id}.qcow2`, taken);
    taken.add(file);
    const { name: baseName, why } = await backingNameOf(disk);
    if (baseName === undefined) throw new UsageError('E_DISK', `cannot cut disk ${diskName(disk)}: ${why ?? ''}`);
    overlays.push({ disk, file, node: `fsb-${id}-${index}`, baseName });
  }
  return overlays;
}

/** NAME_MAX of Linux, bytes: most filesystems have it. */
const MAX_FILE_NAME_BYTES = 255;

/**
 * The name of the image that the first overlay was laid on: names must not grow with every set. What a
 * set's name has before a dot stays, since it cannot be told from the image's: the bound of a file name ends that.
 */
function originalName(image: string): string {
  return parse(image).name.replace(/(\.[A-Za-z0-9][A-Za-z0-9_-]*-[0-9a-f]{8})+$/, '');
}

// Two images of one name in different folders may share an overlay folder.
function freeName(folder: string, image: string, end: string, taken: ReadonlySet<string>): string {
  for (let number = 1; ; number++) {
    const rest = number === 1 ? end : `-${number}${end}`;
    const file = join(folder, `${clipBytes(image, MAX_FILE_NAME_BYTES - Buffer.byteLength(rest))}${rest}`);
    if (!taken.has(file)) return file;
  }
}

/** The first whole characters of the text that fit into so many bytes. */
function clipBytes(text: string, bytes: number): string {
  return new StringDecoder('utf8').write(Buffer.from(text).subarray(0, bytes));
}

async function isDevice(file: string): Promise<boolean> {
  try {
    return (await stat(file)).isBlockDevice();
  } catch (cause) {
    throw new UsageError('E_NO_IMAGE', `image ${file} cannot be found from here`, { cause });
  }
}

export interface Room {
  readonly folder: string;
  /** Bytes. */
  readonly free: number;
  readonly needed: number;
}

/** The folders of the overlays. Throws a UsageError for one that cannot be used, and if a file is already there. */
export async function readRoom(overlays: readonly Overlay[], minFreeBytes: number): Promise<Room[]> {
  const folders = new Map<string, number>();
  for (const { file } of overlays) {
    if (await exists(file)) throw taken(file);
    folders.set(dirname(file), (folders.get(dirname(file)) ?? 0) + 1);
  }
  const rooms: Room[] = [];
  for (const [folder, count] of folders) {
    try {
      const { bavail, bsize } = await statfs(folder);
      rooms.push({ folder, free: bavail * bsize, needed: count * minFreeBytes });
    } catch (cause) {
      throw new UsageError('E_OVERLAY_DIR', `cannot use ${folder} for overlays`, { cause });
    }
  }
  return rooms;
}

/** Throws a CutError if a folder has too little space. */
export function checkRoom(rooms: readonly Room[]): void {
  for (const room of rooms) {
    const { folder, free, needed } = room;
    if (free >= needed) continue;
    const message = `no space for the overlays in ${folder}: ${mib(free)} free, expected ${mib(needed)}`;
    throw new CutError('E_NO_SPACE', message, { facts: { ...room } });
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

async function makeFile(overlay: Overlay, reverter: Reverter, signal: AbortSignal): Promise<void> {
  const { disk, file, baseName } = overlay;
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
  const { format, virtualSize } = disk;
  // Only the hypervisor has the key of an encrypted disk.
  if (disk.encryption === undefined) {
    await makeOverlay({ file, base: baseName, baseFormat: format, virtualSize }, signal);
  }
  await likeBase(file, disk.file);
}

/**
 * Checks, once the hypervisor has prepared them, that each says what it must, durably. Throws a CutError that names the
 * disk.
 */
export async function checkOverlays(overlays: readonly Overlay[]): Promise<void> {
  for (const overlay of overlays) {
    try {
      await checkFile(overlay);
    } catch (cause) {
      throw overlayFailure(overlay, cause);
    }
  }
}

async function checkFile({ disk: { virtualSize, format, encryption }, file, baseName }: Overlay): Promise<void> {
  const info = await imageInfo(file);
  const described = (size: number, base: string, baseFormat: string, isEncrypted: boolean): string =>
    `${size} bytes over ${base} (${baseFormat})${isEncrypted ? ', encrypted' : ''}`;
  const expected = described(virtualSize, baseName, format, encryption !== undefined);
  const found = described(
    info['virtual-size'],
    info['backing-filename'] ?? 'nothing',
    info['backing-filename-format'] ?? 'of no format',
    info.encrypted,
  );
  if (found !== expected) throw new CutError('E_OVERLAY', `${file} has ${found}, expected ${expected}`);
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
  // Nobody knows whose file it is: another VM may write to it.
  return new UsageError('E_NAME_TAKEN', `${file} is already there, and not of this set: choose another --name`);
}

function mib(bytes: number): string {
  return `${Math.floor(bytes / 1024 / 1024)} MiB`;
}
