// The options of a boot, for guests of both kinds.
import type { DiskFile } from './disks.js';
import type { Capability, GuestKind } from './guest.js';
import type { GuestImage } from './guest-image.js';
import type { KernelVersion } from './recipes.js';

export interface BootOptions<Kind extends GuestKind = GuestKind> {
  /** Default `qemu`: a whole machine. `user-mode`: a process, up in a few seconds where there is no KVM. */
  readonly kind?: Kind;
  /** Capabilities that the test needs. `bootGuest` throws UsageError when guests of this kind have not all of them. */
  readonly needs?: readonly Capability[];
  /** Default: `guestImage()`. */
  readonly image?: GuestImage;
  /** Default: the recipe's. Needs `kernels`. */
  readonly kernel?: KernelVersion;
  /** Default 768. */
  readonly memoryMiB?: number;
  /** Default: 2 in QEMU; 1 is all that a user-mode guest has. */
  readonly cpus?: number;
  /**
   * Disks to boot from instead of the image's, by name (`root`, `data`). They are not written: the guest gets overlays
   * over them (QEMU) or copies.
   */
  readonly bases?: Readonly<Record<string, DiskFile>>;
  /** Limit for the stock agent's first answer. Default 120000. */
  readonly timeoutMs?: number;
}
