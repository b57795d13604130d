// Judges what a set of snapshots is worth: what the agent says of the hold, and what the providers did meanwhile. Pure.
// What the levels mean: README.md of this project; what a writer guarantees: fsfreeze-hook.d/README.md.
import { lasted, lowestLevel, type ConsistencyLevel, type FreezeReport } from '../consistency.js';
import type { Way } from './journal.js';

export interface Judgement {
  /** Of all together. */
  readonly level: ConsistencyLevel;
  /** Of each source alone, in their order. */
  readonly sources: readonly ConsistencyLevel[];
  /** One sentence for each reason. */
  readonly evidence: readonly string[];
}

/** One place, and how it is shown. */
export interface JudgedSource {
  readonly way: Way;
  /** What else lies on its filesystem is not shown, or as it is while it is read: only this path of it was asked for. */
  readonly partOf?: string;
}

/** `report`: of the session in which they were cut, once it is over; absent if nothing was held. */
export function judgeSet(judging: readonly JudgedSource[], report: FreezeReport | undefined): Judgement {
  const held = report === undefined ? undefined : levelOfHold(report);
  const ways = judging.map(({ way }) => way);
  const parts = partsAmong(judging, report);
  const sources = judging.map(({ way, partOf }): ConsistencyLevel => {
    if (!isCut(way) || held === undefined) return 'none';
    return partOf !== undefined && parts.length > 0 ? lowestLevel([held.level], 'filesystem') : held.level;
  });
  // What is the kernel's or in memory is nothing after a crash either: it makes the others worth no less.
  const judged = sources.filter((_, place) => ways[place] !== 'live');
  const bound = ways.filter((way) => way === 'bind').length;
  const together = ofSeveral(ways, report, held?.level ?? 'none');
  return {
    level: lowestLevel([...judged, ...(together === undefined ? [] : [together.level])], held?.level ?? 'none'),
    sources,
    evidence: [
      ...(held?.evidence ?? []),
      ...(together === undefined ? [] : [together.reason]),
      ...parts,
      ...(bound === 0 ? [] : [`${bound} of ${ways.length} places are not snapshot, and change while they are read`]),
    ],
  };
}

/**
 * An application has its files where it likes, links lead to them, and a writer proves that all on a filesystem stood
 * still, not that all it speaks for lies below one path of it.
 */
function partsAmong(judging: readonly JudgedSource[], report: FreezeReport | undefined): readonly string[] {
  if (report?.writers.every(({ verdict }) => verdict === 'not-applicable') !== false) return [];
  const parts = judging.flatMap(({ way, partOf }) => (isCut(way) && partOf !== undefined ? [partOf] : []));
  return [...new Set(parts)].map(
    (mountpoint) =>
      `of ${mountpoint} only a part is shown: what an application has elsewhere on it was not cut with it`,
  );
}

function isCut(way: Way): boolean {
  return way === 'atomic' || way === 'per-volume';
}

/** The level of one volume that was cut in this session, taken alone. */
function levelOfHold(report: FreezeReport): { readonly level: ConsistencyLevel; readonly evidence: readonly string[] } {
  const { level, levelWithProvider = level, evidence } = report;
  if (lasted(report)) return { level: levelWithProvider, evidence };
  // The cut itself is of one instant, frozen or not: device-mapper suspends what it cuts.
  return { level: lowestLevel([level], 'crash'), evidence };
}

/** What makes several worth less than each alone is; undefined if nothing does. */
function ofSeveral(
  ways: readonly Way[],
  report: FreezeReport | undefined,
  level: ConsistencyLevel,
): { readonly level: ConsistencyLevel; readonly reason: string } | undefined {
  if (ways.includes('per-volume')) return whatSurvives(report, level);
  const cut = ways.filter((way) => isCut(way)).length;
  if (cut < 2 || report === undefined || lasted(report)) return undefined;
  return { level: 'none', reason: `the hold did not last (${report.outcome}): some may have been cut after it` };
}

/**
 * What is true of volumes that were cut one after another. Between the cuts only what a writer held stood still: such an
 * application is whole. One that recovers by itself needs all its files of one instant, and so does everything that
 * nobody speaks for.
 */
function whatSurvives(
  report: FreezeReport | undefined,
  level: ConsistencyLevel,
): { readonly level: ConsistencyLevel; readonly reason: string } {
  const speaking = (report?.writers ?? []).filter(({ verdict }) => verdict !== 'not-applicable');
  const needing = speaking.filter(({ guarantee, verdict }) => verdict !== 'verified' || guarantee === 'recoverable');
  const how = 'the volumes were cut one after another';
  if (level === 'application' && speaking.length > 0 && needing.length === 0)
    return { level, reason: `${how}, while every writer was verified to hold its application still` };
  const names = needing.map(({ name }) => name).join(', ');
  return {
    level: 'none',
    reason: `${how}: they are not of one instant${names === '' ? '' : `, which ${names} would need`}`,
  };
}
