// Boots a guest in QEMU from overlays over the image's disks, or over others in their place.
import path from 'node:path';
import { Reverter } from '../../reverter.js';
import type { BootOptions } from '../boot-options.js';
import { markUser } from '../cache.js';
import { createOverlay, describeDisk } from '../disks.js';
import { guestDirectory, removeFolder } from '../guest-folder.js';
import type { GuestImage } from '../guest-image.js';
import { chooseAccelerator } from './accelerator.js';
import { launch } from './launch.js';
import type { QemuGuest } from './qemu-guest.js';

/** Boots it and waits until commands can be run in it. Throws UnreachableError with the console's last lines. */
export async function bootQemu(image: GuestImage, options: BootOptions): Promise<QemuGuest> {
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
      ports: image.ports,
      disks: await Promise.all(disks),
    };
    const atEnd = new Reverter();
    const guest = await launch({ image, machine, dir, incoming: false, atEnd });
    try {
      atEnd.push('mark on the image', await markUser(image.directory, guest.pid));
      await guest.waitForCommands(options.timeoutMs ?? 120_000);
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
