// What the set is worth: the guest's final report, disk by disk, together with what the host saw itself. A level is
// claimed only for what is proved (README, "What a level means"); a disk the guest said nothing of counts only if the
// host saw no write to it from before the freeze until after the thaw.
import {
  lowestLevel,
  satisfies,
  type ConsistencyLevel,
  type DiskRef,
  type FilesystemReport,
  type FreezeReport,
} from '../consistency.js';
import { sameDisk } from './disk-choice.js';

export interface CutDisk {
  readonly name: string;
  /** How the guest knows it; undefined if it cannot be told from another. */
  readonly ref: DiskRef | undefined;
  /** The guest sent no write from before the freeze request until after the thaw reply; undefined if nobody counted. */
  readonly still: boolean | undefined;
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
 * The levels of disks cut in one transaction while the guest was held, by its final report. Never below `crash`: the
 * transaction alone proves that much.
 */
export function levelsOf(report: FreezeReport, disks: readonly CutDisk[]): SetWorth {
  const each = disks.map((disk) => atLeastCrash(levelOf(report, disk)));
  const evidence = [...report.evidence];
  for (const [index, { level, evidence: why }] of each.entries()) {
    if (level === 'crash') evidence.push(`disk ${disks[index]?.name ?? ''}: ${why.join('; ')}`);
  }
  const whole = atLeastCrash({ level: report.level, evidence });
  const level = lowestLevel(
    each.map((worth) => worth.level),
    whole.level,
  );
  return { level, evidence, disks: each };
}

function atLeastCrash(worth: Worth): Worth {
  return worth.level === 'none' ? { ...worth, level: 'crash' } : worth;
}

/** A cut without a hold, or with one that did not last: atomic over the disks, nothing more. */
export function crashOnly(disks: readonly CutDisk[], reason: string): SetWorth {
  const evidence = [`all ${disks.length} disks were cut in one transaction`, reason];
  return { level: 'crash', evidence, disks: disks.map(() => ({ level: 'crash', evidence: [reason] })) };
}

function levelOf(report: FreezeReport, { ref, still }: CutDisk): Worth {
  if (report.state !== 'thawed' || report.outcome !== 'ok') {
    return {
      level: 'crash',
      evidence: [`the guest's hold did not last: ${report.error ?? `it ended ${report.outcome}`}`],
    };
  }
  // A filesystem whose disks the guest could not name may lie on any disk.
  const own = report.filesystems.filter(
    ({ disks }) => ref === undefined || disks.length === 0 || disks.some((disk) => sameDisk(ref, disk)),
  );
  const concerned = own.filter((filesystem) => filesystem.concerned);
  const loose = concerned.filter(({ held }) => held === 'none');
  if (loose.length > 0) {
    const why = loose.map(({ mountpoint, reason }) => `${mountpoint} was not held: ${reason ?? 'no reason given'}`);
    return { level: 'crash', evidence: why };
  }
  if (!concerned.some(({ disks }) => ref === undefined || disks.length > 0)) {
    if (still !== true) {
      const why = still === false ? 'and it was written to meanwhile' : 'and nobody counted its writes';
      return { level: 'crash', evidence: [`the guest has no writable filesystem on it, ${why}`] };
    }
    const why = 'no writable filesystem of the guest is on it, and nothing was written to it from freeze to thaw';
    return { level: best(report), evidence: [why] };
  }
  // The guest gives the whole less than `filesystem`: a single disk may be better only by its own full record.
  if (!satisfies(report.level, 'filesystem') && !concerned.every(hasFullRecord)) {
    return { level: report.level, evidence: ['the guest vouches for no more'] };
  }
  return { level: best(report), evidence: concerned.map(({ mountpoint, held }) => `${mountpoint}: ${held}`) };
}

function best(report: FreezeReport): ConsistencyLevel {
  return report.level === 'application' ? 'application' : 'filesystem';
}

function hasFullRecord({ held, freeze, thaw, freezeErrno, thawErrno }: FilesystemReport): boolean {
  if (held === 'read-only') return true;
  return held === 'frozen' && freeze !== undefined && thaw !== undefined && !freezeErrno && !thawErrno;
}
