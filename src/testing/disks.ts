// Makes and describes the guest's disks as files: overlays over images that must not change, blank disks, and payload disks
// (a tar archive as the raw content of a disk: nothing has to be mounted on the host, nor in the guest).
import { stat, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import * as v from 'valibot';

export type DiskFormat = 'qcow2' | 'raw';

export interface DiskFile {
  readonly file: string;
  readonly format: DiskFormat;
}

/** A disk attached to a guest. */
export interface GuestDisk extends DiskFile {
  /**
   * Its name. In QEMU also its serial number and the name of the block node of the format layer when it was attached; the
   * protocol node is `<node>-file`.
   */
  readonly node: string;
  /** QEMU's id of the device, `disk-<node>`; or where it is plugged into a user-mode kernel, `ubd<N>`. */
  readonly device: string;
  /** Its path in the guest: `/dev/disk/by-id/virtio-<node>`, `/dev/ubd<letter>`. */
  readonly path: string;
  /** Virtual size in bytes. */
  readonly size: number;
  readonly readOnly: boolean;
  /** The image's disk at the bottom of the layers, for disks that a saved state may keep. */
  readonly ground?: DiskFile;
}

const ImageInfo = v.looseObject({ 'virtual-size': v.number() });

/** The virtual size of an image, in bytes. */
async function virtualSize({ file, format }: DiskFile): Promise<number> {
  if (format === 'raw') return (await stat(file)).size;
  const { stdout } = await execa('qemu-img', ['info', '-U', '--output=json', '-f', format, file], { timeout: 20_000 });
  return v.parse(ImageInfo, JSON.parse(stdout))['virtual-size'];
}

/** Makes `file` a qcow2 overlay over `base`, which is never written. */
export async function createOverlay(file: string, base: DiskFile): Promise<DiskFile> {
  const backing = path.resolve(base.file);
  await execa('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', backing, '-F', base.format, file], { timeout: 20_000 });
  return { file, format: 'qcow2' };
}

export async function createBlank(file: string, sizeMiB: number, format: DiskFormat = 'qcow2'): Promise<DiskFile> {
  if (format === 'raw') {
    await writeFile(file, '');
    await truncate(file, sizeMiB * 2 ** 20);
  } else await execa('qemu-img', ['create', '-q', '-f', format, file, `${sizeMiB}M`], { timeout: 20_000 });
  return { file, format };
}

/** Writes `file` as a raw disk that holds a tar archive of `sources`, each under its own base name. */
export async function createPayload(file: string, sources: readonly string[]): Promise<DiskFile> {
  const members = sources.flatMap((source) => ['-C', path.dirname(path.resolve(source)), path.basename(source)]);
  await execa('tar', ['--owner=0', '--group=0', '-cf', file, ...members], { timeout: 120_000 });
  return { file, format: 'raw' };
}

/** Makes `file` stand directly on `ground`, an image further down its own chain, with the same content as before. */
export async function rebase(file: string, ground: DiskFile): Promise<void> {
  const base = ['-b', path.resolve(ground.file), '-F', ground.format];
  await execa('qemu-img', ['rebase', '-q', '-f', 'qcow2', ...base, file], { timeout: 120_000 });
}

/** Describes `disk` as attached under `name`. `size` saves asking for it. */
export async function describeDisk(
  name: string,
  { file, format }: DiskFile,
  { readOnly = false, size }: { readonly readOnly?: boolean; readonly size?: number } = {},
): Promise<GuestDisk> {
  const bytes = size ?? (await virtualSize({ file, format }));
  return {
    file,
    format,
    node: name,
    device: `disk-${name}`,
    path: `/dev/disk/by-id/virtio-${name}`,
    size: bytes,
    readOnly,
  };
}

/** The block nodes of a disk, protocol first, as for `blockdev-add`. */
export function blockNodes({ node, file, format, readOnly }: GuestDisk): Record<string, unknown>[] {
  const common = { 'read-only': readOnly, discard: 'unmap' };
  return [
    { ...common, driver: 'file', 'node-name': `${node}-file`, filename: file },
    { ...common, driver: format, 'node-name': node, file: `${node}-file` },
  ];
}

/** The device of a disk, as for `device_add`. */
export function diskDevice({ node, device }: GuestDisk): Record<string, string> {
  return { driver: 'virtio-blk-pci', id: device, drive: node, serial: node };
}
