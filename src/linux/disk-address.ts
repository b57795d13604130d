// Reads from a disk's sysfs path where it is plugged in, by the rules of QEMU's build_guest_fsinfo_for_pci_dev()
// (qga/commands-linux.c, GuestDiskAddress in qga/qapi-schema.json), so that guest-get-fsinfo answers what hosts know.
import { driverOf } from './block-tree.js';
import { namesIn } from './kernel-values.js';

interface PciAddress {
  readonly domain: number;
  readonly bus: number;
  readonly slot: number;
  readonly function: number;
}

/** Members as in GuestDiskAddress; all of `pci` is -1 where there is no PCI controller. */
export interface DiskAddress {
  readonly pci: PciAddress;
  /** `DDDD:BB:SS.F`; absent where there is no PCI controller. */
  readonly pciAddress?: string;
  readonly busType: 'ide' | 'scsi' | 'virtio' | 'usb' | 'sata' | 'nvme' | 'unknown';
  readonly bus: number;
  readonly target: number;
  readonly unit: number;
  /** On s390x. */
  readonly ccw?: { readonly cssid: number; readonly ssid: number; readonly subchno: number; readonly devno: number };
}

const CONTROLLERS = ['ata_piix', 'sym53c8xx', 'virtio-pci', 'ahci', 'nvme', 'xhci_hcd', 'ehci-pci'] as const;

const NO_PCI: PciAddress = { domain: -1, bus: -1, slot: -1, function: -1 };

/** `path`: sysfs folder of the whole disk, links resolved. Never throws. */
export function diskAddress(path: string): DiskAddress {
  const nothing: DiskAddress = { pci: NO_PCI, busType: 'unknown', bus: 0, target: 0, unit: 0 };
  const ccw = ccwAddress(path);
  if (ccw !== undefined) return { ...nothing, busType: 'virtio', ccw };
  const controller = findController(path);
  if (controller === undefined) return nothing;
  const { pci, name } = controller;
  const hex = (value: number, width: number): string => value.toString(16).padStart(width, '0');
  const found: DiskAddress = {
    ...nothing,
    pci,
    pciAddress: `${hex(pci.domain, 4)}:${hex(pci.bus, 2)}:${hex(pci.slot, 2)}.${pci.function.toString(16)}`,
  };
  const target = /\/target\d+:\d+:\d+\/\d+:(\d+):(\d+):(\d+)/.exec(path);
  const [, , second, third] = (target ?? []).map(Number);
  switch (name) {
    case 'ata_piix': {
      // One host for each IDE bus; the unit is the second number of the target.
      const bus = hostIndex(path);
      return bus === undefined || second === undefined ? found : { ...found, busType: 'ide', bus, unit: second };
    }
    case 'sym53c8xx':
      return second === undefined ? found : { ...found, busType: 'scsi', unit: second };
    case 'virtio-pci':
      // With a target it is virtio-scsi, whose disks QEMU tells apart by the LUN; else virtio-blk.
      return third === undefined ? { ...found, busType: 'virtio' } : { ...found, busType: 'scsi', unit: third };
    case 'ahci': {
      const unit = hostIndex(path);
      return unit === undefined ? found : { ...found, busType: 'sata', unit };
    }
    case 'nvme':
      return { ...found, busType: 'nvme' };
    case 'xhci_hcd':
    case 'ehci-pci':
      return { ...found, busType: 'usb' };
  }
}

type ControllerName = (typeof CONTROLLERS)[number];

// Walks the PCI devices on the path from the root to the first one driven by a disk controller: bridges come before.
function findController(path: string): { readonly pci: PciAddress; readonly name: ControllerName } | undefined {
  const start = /\/devices\/pci[0-9a-f]+:[0-9a-f]+(?=\/)/.exec(path);
  if (start === null) return undefined;
  let end = start.index + start[0].length;
  for (;;) {
    const step = /^\/([0-9a-f]+):([0-9a-f]+):([0-9a-f]+)\.([0-9a-f]+)(?=\/|$)/.exec(path.slice(end));
    if (step === null) return undefined;
    end += step[0].length;
    const name = driverOf(path.slice(0, end));
    const controller = CONTROLLERS.find((known) => known === name);
    if (controller === undefined) continue;
    const [domain = -1, bus = -1, slot = -1, fn = -1] = step.slice(1).map((digits) => Number.parseInt(digits, 16));
    return { pci: { domain, bus, slot, function: fn }, name: controller };
  }
}

// Which of the controller's hosts (`ataN`, else `hostN`, in numerical order) the disk hangs on.
function hostIndex(path: string): number | undefined {
  const found = /\/(ata|host)(\d+)/.exec(path.includes('/ata') ? path.slice(path.indexOf('/ata')) : path);
  if (found === null) return undefined;
  const [, prefix = '', number] = found;
  const parent = path.slice(0, path.indexOf(`/${prefix}${number ?? ''}`));
  const hosts = namesIn(parent)
    .flatMap((entry) => new RegExp(`^${prefix}(\\d+)$`).exec(entry)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => a - b);
  const index = hosts.indexOf(Number(number));
  return index < 0 ? undefined : index;
}

function ccwAddress(path: string): DiskAddress['ccw'] {
  // .../css0/0.0.0000/0.0.fc00/virtio1/block/vda: subchannel, then device.
  const match = /\/css\d+\/([0-9a-f]+)\.([0-9a-f]+)\.([0-9a-f]+)\/[0-9a-f]+\.[0-9a-f]+\.([0-9a-f]+)\//.exec(path);
  if (match === null) return undefined;
  const [cssid = 0, ssid = 0, subchno = 0, devno = 0] = match.slice(1).map((digits) => Number.parseInt(digits, 16));
  return { cssid, ssid, subchno, devno };
}
