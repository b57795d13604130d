// Judges what a set is worth, disk by disk: by the guest's final report, and by what the host saw itself. A level is
// claimed only for what is proved (README, "What a level means"). A disk the guest said nothing of counts only if the
// host saw no write to it from before the freeze until after the thaw. A filesystem over several disks of which one was
// not cut is torn: nothing on it is worth anything. A filesystem that no kernel can freeze is not counted as held.
import { constants } from 'node:os';
import {
  lowestLevel,
  satisfies,
  type ConsistencyLevel,
  type DiskRef,
  type FilesystemReport,
  type FreezeReport,
  lasted,
} from '../../consistency.js';
import { sameDisk } from '../vm/disk-choice.js';

export interface CutDisk {
  readonly name: string;
  /** How the guest knows it; undefined if it cannot be told from another. */
  readonly ref: DiskRef | undefined;
  /** The guest sent no write from before the freeze request until after the thaw reply; undefined if nobody counted. */
  readonly still: boolean | undefined;
  /** The PCI address behind which it is, as far as the host knows it. */
  readonly pciAddress?: string | undefined;
  /** Disks of the VM behind that address, itself and those not cut included. */
  readonly sharers?: number;
}

interface Worth {
  readonly level: ConsistencyLevel;
  readonly evidence: readonly string[];
}

export interface SetWorth extends Worth {
  /** In the order of the disks given. */
  readonly disks: readonly Worth[];
}

/**
 * The levels of disks cut in one transaction while the guest was held, by its final report. `none` for a disk that holds
 * only a part of a filesystem; else never below `crash`: the transaction alone proves that much.
 */
export function levelsOf(report: FreezeReport, disks: readonly CutDisk[]): SetWorth {
  const torn = tornFilesystems(report, disks);
  const each = disks.map((disk) => tornLevel(torn, disk) ?? atLeastCrash(levelOf(report, disk)));
  const evidence = [...report.evidence];
  for (const [index, { level, evidence: why }] of each.entries()) {
    if (!satisfies(level, 'filesystem')) evidence.push(`disk ${disks[index]?.name ?? ''}: ${why.join('; ')}`);
  }
  for (const filesystem of torn) evidence.push(whyTorn(filesystem, disks));
  const whole = atLeastCrash({ level: report.level, evidence });
  const level = lowestLevel(
    each.map((worth) => worth.level),
    whole.level,
  );
  return { level, evidence, disks: each };
}

/** Filesystems of which a part only was cut: LVM, md or btrfs over several disks, not all of them in the set. */
export function tornFilesystems(report: FreezeReport, cut: readonly CutDisk[]): readonly FilesystemReport[] {
  return report.filesystems.filter(({ concerned, disks }) => {
    const within = disks.filter((disk) => isCut(disk, cut));
    return concerned && within.length > 0 && within.length < disks.length;
  });
}

/** For people: why the filesystem is torn. */
export function whyTorn({ mountpoint, disks }: FilesystemReport, cut: readonly CutDisk[]): string {
  const outside = disks.filter((disk) => !isCut(disk, cut)).map((disk) => disk.dev ?? disk.serial ?? disk.pciAddress);
  return `${mountpoint} lies in part on disks that were not cut (${outside.map((name) => name ?? 'unknown').join(', ')})`;
}

function isCut(guest: DiskRef, cut: readonly CutDisk[]): boolean {
  if (cut.some(({ ref }) => ref !== undefined && sameDisk(ref, guest))) return true;
  // Which of the disks behind one address it is cannot be told: it is cut if they all are.
  const there = cut.filter(({ pciAddress }) => pciAddress !== undefined && pciAddress === guest.pciAddress);
  return there.length > 0 && there.length === there[0]?.sharers;
}

function tornLevel(torn: readonly FilesystemReport[], disk: CutDisk): Worth | undefined {
  const own = torn.filter(({ disks }) => mayLieOn(disks, disk));
  if (own.length === 0) return undefined;
  return {
    level: 'none',
    evidence: own.map(({ mountpoint }) => `${mountpoint} lies in part on disks that were not cut`),
  };
}

// A filesystem whose disks the guest could not name may lie on any disk.
function mayLieOn(disks: readonly DiskRef[], { ref }: CutDisk): boolean {
  return ref === undefined || disks.length === 0 || disks.some((disk) => sameDisk(ref, disk));
}

/**
 * True if the filesystems named speak for the disk, too, though it cannot be told from another: the guest names as many
 * disks behind the address as the VM has there.
 */
function allNamed(report: FreezeReport, { pciAddress, sharers }: CutDisk): boolean {
  if (pciAddress === undefined || sharers === undefined) return false;
  const there = report.filesystems
    .filter(({ concerned }) => concerned)
    .flatMap(({ disks }) => disks)
    .filter((disk) => disk.pciAddress === pciAddress && disk.dev !== undefined);
  return new Set(there.map(({ dev }) => dev)).size === sharers;
}

function atLeastCrash(worth: Worth): Worth {
  return worth.level === 'none' ? { ...worth, level: 'crash' } : worth;
}

/** The worth of a cut without a hold, or with one that did not last: atomic over the disks, nothing more. */
export function crashOnly(disks: readonly CutDisk[], reason: string): SetWorth {
  const evidence = [`all ${disks.length} disks were cut in one transaction`, reason];
  return { level: 'crash', evidence, disks: disks.map(() => ({ level: 'crash', evidence: [reason] })) };
}

function levelOf(report: FreezeReport, disk: CutDisk): Worth {
  if (report.state !== 'thawed' || !lasted(report)) {
    return {
      level: 'crash',
      evidence: [`the guest's hold did not last: ${report.error ?? `it ended ${report.outcome}`}`],
    };
  }
  const own = report.filesystems.filter(({ disks }) => mayLieOn(disks, disk));
  const concerned = own.filter((filesystem) => filesystem.concerned);
  const loose = concerned.filter(({ held }) => held === 'none');
  const lost = loose.filter((filesystem) => !isExcused(filesystem, report, disk, concerned));
  if (lost.length > 0) return { level: 'crash', evidence: lost.map(whyLoose) };
  const isNamed = disk.ref === undefined ? allNamed(report, disk) : concerned.some(({ disks }) => disks.length > 0);
  if (!isNamed) {
    const what =
      disk.ref === undefined
        ? 'the guest cannot tell it from another disk and does not name them all'
        : 'the guest has no writable filesystem on it';
    if (disk.still === true) {
      return { level: best(report), evidence: [`${what}, but nothing was written to it from freeze to thaw`] };
    }
    const why = disk.still === false ? 'and it was written to meanwhile' : 'and nobody counted its writes';
    return { level: 'crash', evidence: [`${what}, ${why}`] };
  }
  // The guest gives the whole less than `filesystem`: a single disk may be better only by its own full record.
  const counted = concerned.filter((filesystem) => !loose.includes(filesystem));
  if (!satisfies(report.level, 'filesystem') && !counted.every(hasFullRecord)) {
    return { level: report.level, evidence: ['the guest vouches for no more'] };
  }
  const excuse = disk.still === true ? 'but nothing was written to its disk from freeze to thaw' : 'and is not counted';
  const evidence = [
    ...counted.map(({ mountpoint, held }) => `${mountpoint}: ${held}`),
    ...loose.map((filesystem) => `${whyLoose(filesystem)}, ${excuse}`),
  ];
  return { level: best(report), evidence };
}

function whyLoose({ mountpoint, reason }: FilesystemReport): string {
  return `${mountpoint} was not held: ${reason ?? 'no reason given'}`;
}

/** Where a boot loader lies: written to when it is updated, and by nobody else. */
const bootMounts = ['/boot/efi', '/efi', '/boot'];

/**
 * A filesystem that cannot freeze takes nothing from its disk if no write reached the disk meanwhile, or if it holds the
 * boot loader alone beside one that was held.
 */
function isExcused(
  { mountpoint, held, freezeErrno }: FilesystemReport,
  report: FreezeReport,
  disk: CutDisk,
  concerned: readonly FilesystemReport[],
): boolean {
  if (held !== 'none' || freezeErrno !== constants.errno.EOPNOTSUPP) return false;
  if (disk.still === true) return true;
  // A guest that counts writes itself, and vouches for less, saw one.
  if (!satisfies(report.level, 'filesystem') || !bootMounts.includes(mountpoint)) return false;
  return concerned.some((other) => other.held !== 'none');
}

function best(report: FreezeReport): ConsistencyLevel {
  return report.level === 'application' ? 'application' : 'filesystem';
}

function hasFullRecord({ held, freeze, thaw, freezeErrno, thawErrno }: FilesystemReport): boolean {
  if (held === 'read-only') return true;
  return held === 'frozen' && freeze !== undefined && thaw !== undefined && !freezeErrno && !thawErrno;
}
