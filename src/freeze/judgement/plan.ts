// Makes the plan of step 1 (src/freeze/README.md): which filesystems a request concerns, which of them are frozen and
// in which order, and which writers take part. Pure but for the questions it puts to the disk lookup; freezes nothing.
import { existsSync } from 'node:fs';
import type { DiskRef, FreezeRequest } from '../../consistency.js';
import type { Disk, DiskChain, DiskLookup } from '../../linux/disks.js';
import { inFreezeOrder, type Ordered, type Unordered } from './freeze-order.js';
import { isNetworkType, mayNotAnswer } from '../../linux/filesystem-types.js';
import type { Mount } from '../../linux/mountinfo.js';
import type { Filesystem, MountTable, SkippedMount } from '../../linux/mounts.js';
import { tellablePath } from '../../linux/path-text.js';
import { safeRealPath } from '../../linux/safe-real-path.js';
import { noRules, ruledOut, type FreezeRules } from './rules.js';
import type { Writer } from '../writers/folders.js';

export interface PlannedFilesystem extends Unordered, Ordered {
  /** It lies on a disk of the cut, or may. */
  readonly inCut: boolean;
  /** It is in the cut, and mounted read-write. */
  readonly concerned: boolean;
  /** Disks under it that the cut leaves out, though it takes others of them. */
  readonly missingDisks: readonly Disk[];
  /** Why it is left, if it is. */
  readonly reason?: string;
  /** Where to open it, best first. */
  readonly mounts: readonly Mount[];
}

/** A disk that the request names. */
export interface DiskOfCut {
  readonly ref: DiskRef;
  /** The name that people are told. */
  readonly label: string;
  /** The disks of this machine that it may be; several only where one PCI address or serial is shared. */
  readonly disks: readonly Disk[];
}

export interface FreezePlan {
  /** In the order in which they freeze; those that do not freeze last. */
  readonly filesystems: readonly PlannedFilesystem[];
  /** Undefined if the request names no disks: then all are in the cut. */
  readonly disks: readonly DiskOfCut[] | undefined;
  readonly skipped: readonly SkippedMount[];
  /** Mount points that the request names, where nothing is mounted. */
  readonly unknownMountpoints: readonly string[];
  /** Mount points that the request leaves to a provider, of no filesystem that it asks for. */
  readonly notLeft: readonly string[];
  /** Filesystems that are left to a provider, and lie in a file on one that freezes: their provider would hang. */
  readonly leftOnFrozen: readonly { readonly what: string; readonly under: string }[];
}

type PlanRequest = Pick<FreezeRequest, 'mountpoints' | 'disks' | 'leave'>;

/** The plan of this request on this machine. Asks of each filesystem which disks it lies on. */
export function makePlan(
  table: MountTable,
  lookup: DiskLookup,
  request: PlanRequest,
  rules: FreezeRules = noRules,
): FreezePlan {
  const disks = request.disks?.map((ref) => diskOfCut(ref, lookup.disks()));
  const wanted = request.mountpoints === undefined ? undefined : new Set(request.mountpoints);
  const leave = new Set(request.leave);
  const skipped: SkippedMount[] = [...table.skipped];
  const planned = table.filesystems.map((filesystem): Omit<PlannedFilesystem, 'group'> => {
    const chain = lookup.chainOf(filesystem);
    const named = wanted === undefined || filesystem.mounts.some((mount) => isNamed(mount, wanted));
    const onDisk = disks === undefined || liesOn(chain, disks);
    // The disks say what is cut; where the request names none, its mount points do.
    const inCut = disks === undefined ? named : onDisk;
    const concerned = inCut && !filesystem.readOnly;
    const missingDisks = disks === undefined || !concerned ? [] : notAmong(chain, disks);
    const common = { filesystem, chain, inCut, concerned, missingDisks, mounts: filesystem.reachable };
    if (filesystem.readOnly) return { ...common, action: 'read-only' };
    // Whether it could be frozen, or may be, does not matter then.
    if (leave.size > 0 && inCut && named && filesystem.mounts.some((mount) => isNamed(mount, leave)))
      return { ...common, action: 'provider' };
    const reason = !inCut
      ? 'no part of the cut'
      : !named
        ? 'not among the mount points asked for'
        : whyLeft(filesystem, rules);
    if (reason === undefined) return { ...common, action: 'freeze' };
    skipped.push({ what: filesystem.mountpoint, reason });
    return { ...common, action: 'leave', reason };
  });
  const elsewhere = table.elsewhere.map(({ filesystem, reason }): Omit<PlannedFilesystem, 'group'> => {
    const chain = lookup.chainOf(filesystem);
    // Names of files are those of another namespace, and mean nothing here.
    const onDisk = disks === undefined ? wanted === undefined : chain.files.length > 0 || liesOn(chain, disks);
    const concerned = onDisk && !filesystem.readOnly;
    const missingDisks = disks === undefined || !concerned ? [] : notAmong(chain, disks);
    skipped.push({ what: filesystem.mountpoint, reason });
    return { filesystem, chain, inCut: onDisk, concerned, missingDisks, mounts: [], action: 'leave', reason };
  });
  return {
    filesystems: inFreezeOrder([...planned, ...elsewhere]),
    disks,
    skipped,
    unknownMountpoints: wanted === undefined ? [] : notMounted(wanted, table),
    notLeft: [...leave].filter((name) => !isLeft(name, planned)),
    leftOnFrozen: leftOnFrozen(planned),
  };
}

/** The name as it is, or as whoever asks was told it: JSON has no bytes that are not UTF-8. */
function isNamed({ mountpoint }: Mount, names: ReadonlySet<string>): boolean {
  return names.has(mountpoint) || names.has(tellablePath(mountpoint));
}

function leftOnFrozen(planned: readonly Omit<PlannedFilesystem, 'group'>[]): FreezePlan['leftOnFrozen'] {
  const freezing = new Set(planned.filter(({ action }) => action === 'freeze').map(({ filesystem }) => filesystem));
  return planned
    .filter(({ action }) => action === 'provider')
    .flatMap(({ filesystem: { mountpoint: what }, chain }) => {
      const under = chain.restsOn.find((filesystem) => freezing.has(filesystem));
      return under === undefined ? [] : [{ what, under: under.mountpoint }];
    });
}

// What is mounted read-only needs nobody to hold it.
function isLeft(name: string, planned: readonly Omit<PlannedFilesystem, 'group'>[]): boolean {
  return planned.some(
    ({ action, inCut, filesystem }) =>
      (action === 'provider' || (action === 'read-only' && inCut)) &&
      filesystem.mounts.some((mount) => isNamed(mount, new Set([name]))),
  );
}

function notMounted(wanted: ReadonlySet<string>, { mounts }: MountTable): readonly string[] {
  const known = new Set(mounts.flatMap(({ mountpoint }) => [mountpoint, tellablePath(mountpoint)]));
  return [...wanted].filter((mountpoint) => !known.has(mountpoint));
}

function whyLeft(filesystem: Filesystem, rules: FreezeRules): string | undefined {
  const ruled = ruledOut(filesystem, rules);
  if (ruled !== undefined) return ruled;
  if (filesystem.type === 'zfs') return 'zfs has no freeze: it is not held';
  if (filesystem.type.startsWith('fuse')) return 'served by a process (FUSE), never opened';
  // gfs2 freezes, for the whole cluster; the others have no freeze, and other machines write to them.
  if (filesystem.type !== 'gfs2' && isNetworkType(filesystem.type))
    return `${filesystem.type} is shared with other machines, and cannot be held by this one`;
  return filesystem.unreachable;
}

// Empty if no disk of it is in the cut: it then counts only because something below it was not understood.
function notAmong(chain: DiskChain, disks: readonly DiskOfCut[]): readonly Disk[] {
  const inCut = new Set(disks.flatMap((disk) => disk.disks.map(({ name }) => name)));
  const missing = chain.disks.filter(({ name }) => !inCut.has(name));
  return missing.length === chain.disks.length ? [] : missing;
}

/**
 * What is cut is not of one instant: a provider that freezes by itself cuts its filesystem at another moment than others
 * theirs.
 */
export function cutsApart({ filesystems }: FreezePlan): boolean {
  const concerned = filesystems.filter((one) => one.concerned);
  return concerned.length > 1 && concerned.some(({ action }) => action === 'provider');
}

/** Filesystems of which the cut takes a part only, with the disks that it leaves out. */
export function tornFilesystems(
  plan: FreezePlan | undefined,
): readonly { readonly what: string; readonly missing: readonly string[] }[] {
  return (plan?.filesystems ?? [])
    .filter(({ missingDisks }) => missingDisks.length > 0)
    .map(({ filesystem: { mountpoint, type }, missingDisks }) => ({
      what: `${mountpoint} (${type})`,
      missing: missingDisks.map(({ dev }) => dev),
    }));
}

// A chain that ends in something unknown may lie on any disk.
function liesOn(chain: DiskChain, disks: readonly DiskOfCut[]): boolean {
  if (!chain.understood) return true;
  return disks.some((disk) => disk.disks.some((one) => chain.disks.some((mine) => mine.name === one.name)));
}

/** virtio-blk shows so much of a serial, and no more (struct virtio_blk, VIRTIO_BLK_ID_BYTES). */
const VIRTIO_SERIAL_BYTES = 20;

function diskOfCut(ref: DiskRef, all: readonly Disk[]): DiskOfCut {
  const serial = ref.serial === undefined || ref.serial === '' ? undefined : ref.serial;
  const bySerial = serial === undefined ? [] : all.filter((disk) => hasSerial(disk, serial));
  const address = ref.pciAddress?.toLowerCase();
  const byAddress = address === undefined ? [] : all.filter((disk) => disk.pciAddress === address);
  return { ref, label: diskLabel(ref), disks: bySerial.length > 0 ? bySerial : byAddress };
}

function hasSerial(disk: Disk, serial: string): boolean {
  const expected =
    disk.address.busType === 'virtio' ? Buffer.from(serial).subarray(0, VIRTIO_SERIAL_BYTES).toString() : serial;
  return [disk.serial, disk.udevSerial].some((own) => own === expected || own === serial);
}

/** The name of a disk, for people. */
function diskLabel(ref: DiskRef): string {
  if (ref.serial !== undefined && ref.serial !== '') return `serial ${ref.serial}`;
  return ref.pciAddress ?? ref.dev ?? 'without serial and PCI address';
}

/** What writers cover, and lies on a filesystem that is no part of the cut: whoever restores the cut misses it. */
export interface Uncovered {
  /** The writer's path. */
  readonly writer: string;
  readonly paths: readonly string[];
}

/** Of `writers` those of which the cut takes a part only. What they name and is not there is nothing to be missed. */
export function uncoveredOf(writers: readonly Writer[], table: MountTable, plan: FreezePlan): readonly Uncovered[] {
  const inCut = new Set(plan.filesystems.filter((one) => one.inCut).map(({ filesystem }) => filesystem));
  const isMissed = (path: string): boolean => {
    const real = safeRealPath(path, table);
    const filesystem = table.filesystemOf(real);
    if (filesystem !== undefined && inCut.has(filesystem)) return false;
    const type = filesystem?.type ?? table.resolve(real)?.type ?? '';
    // What is in memory is missed by nobody, what another machine or a process serves may not be asked for.
    return mayNotAnswer(type) || (filesystem !== undefined && existsSync(real));
  };
  return writers.flatMap(({ path: writer, description }) => {
    const paths = (description?.covers ?? []).filter((path) => isMissed(path));
    return paths.length === 0 ? [] : [{ writer, paths }];
  });
}

/** Writers whose data may lie on a filesystem of the cut. */
export function concernedWriters(
  writers: readonly Writer[],
  table: MountTable,
  plan: FreezePlan,
): { readonly concerned: readonly Writer[]; readonly skipped: readonly SkippedMount[] } {
  const inCut = new Set(plan.filesystems.filter(({ concerned }) => concerned).map(({ filesystem }) => filesystem));
  const isConcerned = (writer: Writer): boolean => {
    const covers = writer.description?.covers ?? [];
    if (covers.length === 0) return true;
    return covers.some((path) => {
      const filesystem = table.filesystemOf(safeRealPath(path, table));
      return filesystem !== undefined && inCut.has(filesystem);
    });
  };
  const usable = writers.filter((writer) => writer.problem === undefined);
  const concerned = usable.filter(isConcerned);
  const skipped = [
    ...writers.flatMap((writer) => (writer.problem === undefined ? [] : { what: writer.path, reason: writer.problem })),
    ...usable
      .filter((writer) => !concerned.includes(writer))
      .map((writer) => ({ what: writer.path, reason: 'what it covers is no part of the cut' })),
  ];
  return { concerned, skipped };
}
