// Which disks a set holds, what is left out and why, and how the guest knows each of them.
import type { DiskRef } from '../../consistency.js';
import { UsageError } from '../../errors.js';
import type { VmDisk } from '../../qmp/block-graph.js';
import type { StateFolder } from './hypervisor.js';

export interface DiskChoice {
  readonly chosen: readonly VmDisk[];
  readonly leftOut: readonly { readonly what: string; readonly reason: string }[];
}

/** For people: the device's id, and where the data is. */
export function diskName(disk: VmDisk): string {
  const serial = disk.serial === undefined ? '' : `, serial ${disk.serial}`;
  return `${disk.id === '' ? disk.node : disk.id} (${disk.file}${serial})`;
}

/**
 * All writable disks, or the ones named by node, serial, drive, device id or file. Throws a UsageError for a name that fits
 * none or several, for a disk that cannot be cut, and if nothing is left.
 */
export function chooseDisks(disks: readonly VmDisk[], named: readonly string[]): DiskChoice {
  const wanted = named.map((name) => findDisk(disks, name));
  const chosen: VmDisk[] = [];
  const leftOut: { what: string; reason: string }[] = [];
  for (const disk of disks) {
    const reason =
      named.length === 0 ? whyNotByDefault(disk) : wanted.includes(disk) ? undefined : 'not named by --disk';
    if (reason === undefined) chosen.push(disk);
    else leftOut.push({ what: diskName(disk), reason });
  }
  for (const disk of chosen) {
    const reason = whyImpossible(disk);
    if (reason !== undefined) throw new UsageError('E_DISK', `cannot cut disk ${diskName(disk)}: ${reason}`);
  }
  if (chosen.length === 0) throw new UsageError('E_DISK', 'the VM has no writable disk to cut');
  return { chosen, leftOut };
}

function findDisk(disks: readonly VmDisk[], name: string): VmDisk {
  const found = disks.filter((disk) =>
    [disk.node, disk.rootNode, disk.serial, disk.device, disk.id, disk.qdev, disk.file].includes(name),
  );
  const [disk] = found;
  if (disk !== undefined && found.length === 1) return disk;
  const there = disks.map((each) => `${each.node} = ${diskName(each)}`).join('; ') || 'none';
  const what = found.length === 0 ? 'fits no disk' : `fits ${found.length} disks`;
  throw new UsageError(
    'E_DISK',
    `--disk ${JSON.stringify(name)} ${what}; expected a node, serial or device of: ${there}`,
  );
}

function whyNotByDefault(disk: VmDisk): string | undefined {
  if (disk.readOnly) return 'read-only';
  if (disk.removable) return 'removable medium';
  if (disk.qdev === undefined) return 'no device of the guest uses it';
  if (isFirmware(disk)) return 'firmware variables, not a disk';
  return undefined;
}

/** QEMU's flash devices are named pflashN or system.flashN. */
function isFirmware({ id, device }: VmDisk): boolean {
  return /(^|[./])p?flash\d*$/.test(id) || device.startsWith('pflash');
}

/** The files in which the firmware keeps its variables: not cut, but copied. */
export function firmwareOf(disks: readonly VmDisk[]): StateFolder[] {
  return disks
    .filter((disk) => isFirmware(disk) && !disk.readOnly)
    .map(({ file }, index) => ({
      name: index === 0 ? 'nvram' : `nvram-${index}`,
      what: 'variables of the firmware',
      path: file,
      seenAt: file,
    }));
}

const formats = ['raw', 'qcow2'];

function whyImpossible(disk: VmDisk): string | undefined {
  if (disk.readOnly) return 'it is read-only';
  if (!formats.includes(disk.format)) return `its format is ${disk.format}, expected ${formats.join(' or ')}`;
  if (!disk.file.startsWith('/')) return `its image is ${disk.file}, expected the absolute path of a local file`;
  return undefined;
}

/**
 * How the guest knows each disk. Undefined for one that cannot be told from another (several disks behind one
 * controller without serials): then the guest must be asked about all of its filesystems.
 */
export function guestRefs(chosen: readonly VmDisk[], all: readonly VmDisk[]): (DiskRef | undefined)[] {
  return chosen.map((disk) => {
    const { serial, pciAddress } = disk;
    const alone = (same: (other: VmDisk) => boolean): boolean => all.filter(same).length === 1;
    const serialFits = serial !== undefined && alone((other) => other.serial === serial);
    const pciFits = pciAddress !== undefined && alone((other) => other.pciAddress === pciAddress);
    if (!serialFits && !pciFits) return undefined;
    return { ...(serialFits ? { serial } : {}), ...(pciFits ? { pciAddress } : {}) };
  });
}

/** True if the guest's disk is this one: by serial if both have one, else by PCI address. */
export function sameDisk(host: DiskRef, guest: DiskRef): boolean {
  if (host.serial !== undefined && guest.serial !== undefined) return host.serial === guest.serial;
  return host.pciAddress !== undefined && host.pciAddress === guest.pciAddress;
}
