// Disks and filesystems, and giving free blocks back to the disks.
import * as v from 'valibot';
import { command, int, members, noArgs } from './command.js';

const text = v.optional(v.string());

const diskAddress = v.object({
  'pci-controller': v.object({ domain: int, bus: int, slot: int, function: int }),
  /** ide, fdc, scsi, virtio, xen, usb, uml, sata, sd, nvme, ... */
  'bus-type': v.string(),
  bus: int,
  target: int,
  unit: int,
  serial: text,
  dev: text,
  /** On s390x. */
  'ccw-address': v.optional(v.object({ cssid: int, ssid: int, subchno: int, devno: int })),
});

export const trimCommands = {
  /** Trims every filesystem; one that fails has `error`, and the others go on. */
  'guest-fstrim': command({
    since: '1.2',
    args: members({ minimum: v.optional(int) }),
    returns: v.object({
      paths: v.array(
        v.object({
          path: v.string(),
          trimmed: v.optional(int),
          minimum: v.optional(int),
          error: v.optional(v.string()),
        }),
      ),
    }),
  }),
} as const;

export const diskCommands = {
  /** Whole disks and partitions. `dependencies`: the devices that it lies on; a partition lies on its disk. */
  'guest-get-disks': command({
    since: '5.2',
    policy: 'freeze-only',
    args: noArgs,
    returns: v.array(
      v.object({
        name: v.string(),
        partition: v.boolean(),
        dependencies: v.optional(v.array(v.string())),
        address: v.optional(diskAddress),
        alias: v.optional(v.string()),
      }),
    ),
  }),
  'guest-get-fsinfo': command({
    since: '2.2',
    policy: 'freeze-only',
    args: noArgs,
    returns: v.array(
      v.object({
        /** Kernel name, `vda1`, `dm-0`. */
        name: v.string(),
        mountpoint: v.string(),
        type: v.string(),
        'used-bytes': v.optional(int),
        'total-bytes': v.optional(int),
        'total-bytes-privileged': v.optional(int),
        disk: v.array(diskAddress),
      }),
    ),
  }),
} as const;
