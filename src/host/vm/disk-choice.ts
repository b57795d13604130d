// Chooses the disks of a set, and says what is left out and why. Also how the guest knows each disk.
import type { DiskRef } from '../../consistency.js';
import { UsageError } from '../../errors.js';
import type { VmDisk } from '../../qmp/block-graph.js';
import { parseImageName, protocols } from '../../qmp/image-name.js';
import type { OutsideStorage } from '../../qmp/outside.js';
import type { StateFolder } from './state-folder.js';

export interface LeftOut {
  readonly what: string;
  readonly reason: string;
}

export interface DiskChoice {
  readonly chosen: readonly VmDisk[];
  readonly leftOut: readonly LeftOut[];
  /** Those of `leftOut` that the guest may write to and nobody chose to leave out: the set is not all of the VM. */
  readonly missing: readonly LeftOut[];
}

export interface ChoiceFacts {
  /** Why an overlay cannot be laid on a disk, as far as that is not seen from the disk itself. */
  readonly refusals?: ReadonlyMap<VmDisk, string>;
  readonly outside?: readonly OutsideStorage[];
}

/** For people: the device's id, and where the data is. */
export function diskName(disk: VmDisk): string {
  const serial = disk.serial === undefined ? '' : `, serial ${disk.serial}`;
  return `${disk.id === '' ? disk.node : disk.id} (${disk.file}${serial})`;
}

/**
 * All writable disks that can be cut, or the ones named by node, serial, drive, device id or file. Throws a UsageError for
 * a name that fits none or several, for a named disk that cannot be cut, and if nothing is left.
 */
export function chooseDisks(
  disks: readonly VmDisk[],
  named: readonly string[],
  { refusals = new Map(), outside = [] }: ChoiceFacts = {},
): DiskChoice {
  const others = outside.map((storage) => ({ name: storage.id, ...outsideOf(storage) }));
  const whyNot = (disk: VmDisk): string | undefined => whyImpossible(disk) ?? refusals.get(disk);
  const wanted = named.map((name) => findDisk(disks, name, others));
  const chosen: VmDisk[] = [];
  const leftOut: LeftOut[] = [];
  const missing: LeftOut[] = [];
  for (const disk of disks) {
    const what = diskName(disk);
    if (named.length > 0) {
      if (wanted.includes(disk)) chosen.push(disk);
      else leftOut.push({ what, reason: 'not named by --disk' });
      continue;
    }
    const reason = whyNotByDefault(disk);
    const impossible = reason === undefined ? whyNot(disk) : undefined;
    if (impossible !== undefined) missing.push({ what, reason: impossible });
    if (reason !== undefined || impossible !== undefined) leftOut.push({ what, reason: reason ?? impossible ?? '' });
    else chosen.push(disk);
  }
  for (const disk of chosen) {
    const reason = whyNot(disk);
    if (reason !== undefined) throw new UsageError('E_DISK', `cannot cut disk ${diskName(disk)}: ${reason}`);
  }
  for (const { what, reason } of others) {
    leftOut.push({ what, reason });
    if (named.length === 0) missing.push({ what, reason });
  }
  if (chosen.length === 0) {
    const why = leftOut.map(({ what, reason }) => `${what}: ${reason}`).join('; ');
    throw new UsageError('E_DISK', `the VM has no writable disk to cut${why === '' ? '' : ` (${why})`}`);
  }
  return { chosen, leftOut, missing };
}

function outsideOf({ id, type, kind }: OutsideStorage): LeftOut {
  const reason =
    kind === 'disk'
      ? 'another process serves it (vhost): QEMU does not see its data'
      : 'a folder of the host: it lies in no disk';
  return { what: `${id} (${type})`, reason };
}

function findDisk(disks: readonly VmDisk[], name: string, others: readonly (LeftOut & { name: string })[]): VmDisk {
  const found = disks.filter((disk) =>
    [disk.node, disk.rootNode, disk.serial, disk.device, disk.id, disk.qdev, disk.file].includes(name),
  );
  const [disk] = found;
  if (disk !== undefined && found.length === 1) return disk;
  const other = others.find((each) => each.name === name);
  if (other !== undefined && disk === undefined) {
    throw new UsageError('E_DISK', `cannot cut ${other.what}: ${other.reason}`);
  }
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
export function isFirmware({ id, device }: VmDisk): boolean {
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

/** Formats of images that can be cut, or backed up. */
export const imageFormats = ['raw', 'qcow2'] as const;
/** The guest sends its commands to the device itself. */
const passedThrough = ['scsi-generic', 'scsi-block'];
const networks = ['nbd', 'rbd', 'http', 'https', 'ftp', 'ftps', 'ssh', 'iscsi', 'gluster', 'nfs'];

function whyImpossible({ readOnly, trouble, shared, model, name, format, file }: VmDisk): string | undefined {
  if (readOnly) return 'it is read-only';
  if (trouble !== undefined) return trouble;
  if (shared) return 'others may write to it at the same time (share-rw): with an overlay each would see another disk';
  if (model !== undefined && passedThrough.includes(model)) return `it is passed through to the guest (${model})`;
  const { driver } = parseImageName(name);
  if (driver !== undefined && networks.includes(driver)) return `its image lies on the network: ${file}`;
  // The key is the LUKS layer's own: a qcow2 over it would hold what is written after the cut without any.
  if (format === 'luks')
    return 'it is encrypted as a whole (LUKS, not within qcow2): its overlay would hold clear text';
  const isKnown = imageFormats.some((each) => each === format);
  if (!isKnown) return `its format is ${format}, expected ${imageFormats.join(' or ')}`;
  if (name.startsWith('json:') && driver !== undefined && !protocols.includes(driver)) {
    return `a ${driver} node lies between its format and its file`;
  }
  if (!file.startsWith('/')) return `its image is ${file}, expected the absolute path of a local file`;
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
