// Boots a guest of either kind from an image, or from other disks in its place (a cut, say).
import { UsageError } from '../errors.js';
import type { BootOptions } from './boot-options.js';
import { requireCapabilities, type Guest, type GuestKind } from './guest.js';
import type { GuestImage } from './guest-image.js';
import { guestImage } from './image.js';
import { requirePrograms } from './programs.js';
import { bootQemu } from './qemu/boot-qemu.js';
import type { QemuGuest } from './qemu/qemu-guest.js';
import { bootUserMode } from './user-mode/boot-user-mode.js';
import type { UserModeGuest } from './user-mode/user-mode-guest.js';

interface GuestOfKind {
  readonly qemu: QemuGuest;
  readonly 'user-mode': UserModeGuest;
}

/**
 * Boots a guest and waits until commands can be run in it. Its services may not all be up yet (`waitForSystem`), and
 * servers are off until they are started (`startPostgres`). Throws UnreachableError with the console's last lines when it
 * does not come up, UsageError `E_PROGRAMS` when this machine lacks a program that the kind needs.
 */
export async function bootGuest<Kind extends GuestKind = 'qemu'>(
  options: BootOptions<Kind> = {},
): Promise<GuestOfKind[Kind]> {
  const kind: GuestKind = options.kind ?? 'qemu';
  if (!Object.hasOwn(BOOTS, kind)) {
    throw new UsageError('E_GUEST_KIND', `guest: expected kind qemu or user-mode, found ${kind as string}`);
  }
  requireCapabilities(kind, [
    ...(options.needs ?? []),
    ...(options.kernel === undefined ? [] : (['kernels'] as const)),
    ...((options.cpus ?? 1) > 1 ? (['processors'] as const) : []),
  ]);
  requirePrograms(kind);
  const guest: Guest = await BOOTS[kind](options.image ?? (await guestImage()), options);
  return guest as GuestOfKind[Kind];
}

const BOOTS: Readonly<Record<GuestKind, (image: GuestImage, options: BootOptions) => Promise<Guest>>> = {
  qemu: bootQemu,
  'user-mode': bootUserMode,
};
