// What a boot test may be told by its user.
import type { LuksKey } from '../images/luks-key.js';

export const acceleratorChoices = ['auto', 'kvm', 'tcg'] as const;
export const diskBuses = ['virtio', 'scsi', 'sata', 'nvme'] as const;
export type DiskBus = (typeof diskBuses)[number];

/** A command line for the guest's shell. */
export interface GuestCommand {
  readonly line: string;
  /** What its output must match; without it, it must exit 0. */
  readonly expect: RegExp | undefined;
}

/** What differs from the machine that is recorded with the run. */
export interface MachineChoice {
  /** `auto`: KVM where it can be opened; what fails under it is judged again by emulation. */
  readonly accelerator: (typeof acceleratorChoices)[number];
  readonly machine: string | undefined;
  readonly memoryBytes: number | undefined;
  readonly cpus: number | undefined;
  readonly diskBus: DiskBus | undefined;
  /** More words for QEMU; they come last. */
  readonly qemuArgs: readonly string[];
}

export interface BootOptions extends MachineChoice {
  /** Of runs that are encrypted. */
  readonly key: LuksKey | undefined;
  /** From the guest's start until its agent answers. */
  readonly bootLimitMs: number;
  /** From then on, for filesystems, writers and commands to become as they should be. */
  readonly checkLimitMs: number;
  readonly commands: readonly GuestCommand[];
  /** Mount points of the run that need not be mounted again. */
  readonly ignoredMounts: readonly string[];
  /** Folder for what the guest writes, absolute. */
  readonly scratch: string;
}
