// Boots a guest from the image, or from other disks in its place (a cut, say), each under an overlay of its own.
import path from 'node:path';
import { Reverter } from '../reverter.js';
import { chooseAccelerator } from './accelerator.js';
import { markUser } from './cache.js';
import { createOverlay, describeDisk, type DiskFile } from './disks.js';
import type { Guest } from './guest.js';
import { guestDirectory, removeFolder } from './guest-folder.js';
import { guestImage, type GuestImage } from './image.js';
import { launch, waitForGuest } from './launch.js';

export interface BootOptions {
  /** Default: `guestImage()`. */
  readonly image?: GuestImage;
  /** Default 768. */
  readonly memoryMiB?: number;
  /** Default 2. */
  readonly cpus?: number;
  /** Disks to boot from instead of the image's, by name (`root`, `data`): the guest gets overlays over them. */
  readonly bases?: Readonly<Record<string, DiskFile>>;
  /** How long the stock agent may take to answer. Default 120000. */
  readonly timeoutMs?: number;
}

/**
 * Boots a guest and waits until commands can be run in it; not until all its services are up (`waitForSystem`,
 * `waitForPostgres`). Throws UnreachableError with the console's last lines when it does not come up.
 */
export async function bootGuest(options: BootOptions = {}): Promise<Guest> {
  const image = options.image ?? (await guestImage());
  const dir = await guestDirectory();
  try {
    const disks = image.disks.map(async ({ name, ...base }) => {
      const ground = options.bases?.[name] ?? base;
      const overlay = await createOverlay(path.join(dir, `${name}.qcow2`), ground);
      return { ...(await describeDisk(name, overlay)), ground };
    });
    const machine = {
      kernel: image.kernel,
      initrd: image.initrd,
      memoryMiB: options.memoryMiB ?? 768,
      cpus: options.cpus ?? 2,
      accelerator: await chooseAccelerator(image.kernel),
      disks: await Promise.all(disks),
    };
    const atEnd = new Reverter();
    const guest = await launch(machine, dir, false, atEnd);
    try {
      atEnd.push('mark on the image', await markUser(image.directory, guest.pid));
      await waitForGuest(guest, options.timeoutMs ?? 120_000);
    } catch (cause) {
      await guest.kill();
      throw cause;
    }
    return guest;
  } catch (cause) {
    await removeFolder(dir);
    throw cause;
  }
}
