// Commands that describe the guest. Members QEMU marks `*` are optional; the order is QEMU's schema's.
import * as v from 'valibot';
import { command, int, noArgs } from './command.js';

const text = v.optional(v.string());

export const diskAddress = v.object({
  'pci-controller': v.object({ domain: int, bus: int, slot: int, function: int }),
  /** ide, fdc, scsi, virtio, xen, usb, uml, sata, sd, nvme, ... */
  'bus-type': v.string(),
  bus: int,
  target: int,
  unit: int,
  serial: text,
  dev: text,
  /** Of s390x. */
  'ccw-address': v.optional(v.object({ cssid: int, ssid: int, subchno: int, devno: int })),
});

export const guestCommands = {
  'guest-get-fsinfo': command({
    name: 'guest-get-fsinfo',
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
  'guest-get-osinfo': command({
    name: 'guest-get-osinfo',
    since: '2.10',
    policy: 'freeze-only',
    args: noArgs,
    returns: v.object({
      'kernel-release': text,
      'kernel-version': text,
      machine: text,
      id: text,
      name: text,
      'pretty-name': text,
      version: text,
      'version-id': text,
      variant: text,
      'variant-id': text,
    }),
  }),
  'guest-get-host-name': command({
    name: 'guest-get-host-name',
    since: '2.10',
    policy: 'freeze-only',
    args: noArgs,
    returns: v.object({ 'host-name': v.string() }),
  }),
  /** Nanoseconds since 1970 (UTC): beyond 2^53, so a bigint. */
  'guest-get-time': command({
    name: 'guest-get-time',
    since: '1.5',
    policy: 'freeze-only',
    args: noArgs,
    returns: int,
  }),
} as const;
