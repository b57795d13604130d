// Boots a guest on User Mode Linux from copies of the image's disks, or of others in their place.
import path from 'node:path';
import { execa } from 'execa';
import { UsageError } from '../../errors.js';
import { Reverter } from '../../reverter.js';
import type { BootOptions } from '../boot-options.js';
import type { DiskFile } from '../disks.js';
import { guestDirectory, removeFolder } from '../guest-folder.js';
import type { GuestImage } from '../guest-image.js';
import { KERNEL_VERSIONS } from '../recipes.js';
import { userModeKernel } from './kernel.js';
import { launchUserMode } from './launch.js';
import type { UserModeGuest } from './user-mode-guest.js';

/** Boots it and waits until commands can be run in it. Throws UnreachableError with the console's last lines. */
export async function bootUserMode(image: GuestImage, options: BootOptions): Promise<UserModeGuest> {
  const version = options.kernel ?? image.userModeKernel;
  if (!KERNEL_VERSIONS.includes(version)) {
    throw new UsageError(
      'E_KERNEL',
      `kernel: expected one of ${KERNEL_VERSIONS.join(', ')}, found ${version as string}`,
    );
  }
  const kernel = await userModeKernel(version);
  const dir = await guestDirectory();
  await using undo = new Reverter();
  undo.push('folder of the guest', async () => {
    await removeFolder(dir);
  });
  const copies = image.disks.map(async ({ name, ...base }) => {
    const file = path.join(dir, `${name}.raw`);
    await copyDisk(options.bases?.[name] ?? base, file);
    return { name, file };
  });
  const disks = await Promise.all(copies);
  const guest = await launchUserMode({ image, kernel, disks, memoryMiB: options.memoryMiB ?? 768, dir });
  undo.push('guest', async () => {
    await guest.kill();
  });
  await guest.waitForCommands(options.timeoutMs ?? 120_000);
  undo.keep();
  return guest;
}

/** Makes a private copy, raw: a reflink where the filesystem can, else without the holes. */
export async function copyDisk({ file, format }: DiskFile, target: string): Promise<void> {
  const copy =
    format === 'raw'
      ? ['cp', '--reflink=auto', '--sparse=auto', '--no-preserve=mode', file, target]
      : ['qemu-img', 'convert', '-f', format, '-O', 'raw', file, target];
  const [command = '', ...args] = copy;
  await execa(command, args, { timeout: 120_000 });
}
