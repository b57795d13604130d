// What every cell must show, as one list of complaints: back in time, writers released, the label true, nothing of a
// stranger's touched. Pure: works on what the guest noted (timeline.ts), in guest time.
import { satisfies, type ConsistencyLevel } from '../../../src/consistency.js';
import { DIRECTORIES, RESIDENT, WRITER_LIMITS_MS, WRITERS } from './lab-parts.js';
import type { Told } from './matrix.js';
import type { Attempt } from './requesters.js';
import { markerAt, runningMs, type Timeline } from './timeline.js';

/** The promises, in milliseconds of guest running time. */
const PROMISES = { backMs: 1000, releaseMs: 1000, releaseByNextAgentMs: 5000 } as const;
/** A thaw is answered after that whatever the disks do (qga/freezer/README.md); the writers wait for the answer. */
const THAW_ANSWER_MS = 2000;
/** Between a writer's limit and its end: SIGTERM, a quarter of a second, SIGKILL, and this for a busy machine. */
const KILL_SLACK_MS = 1500;

export interface Instants {
  /** Guest's time of the fault. */
  readonly shotNs: number;
  /** The lease of each session counts from its first FIFREEZE, and may have been renewed up to the fault. */
  readonly leaseMs: number;
  readonly renews: boolean;
  /** The fault ends the hold, whatever the lease. */
  readonly atOnce: boolean;
  /** When the step was let go, a disk took writes again, what was stopped went on: nobody could do anything before. */
  readonly letGoNs: readonly number[];
  /** A disk took no writes until then. */
  readonly stalledUntilNs: number | undefined;
  readonly agentDies: boolean;
  /** What a stranger froze and holds. */
  readonly foreignFrozen: string | undefined;
  /** The guest has no memory: it stands still by itself, and only what was marked as frozen is judged. */
  readonly thrashes?: boolean;
}

export interface Measures {
  /** From the end of the hold (lease, death, stalled disk) to the first write of the slowest filesystem; negative: before. */
  readonly backMs: number | undefined;
  /** The longest a writer waited for its thaw after its turn. */
  readonly releaseMs: number | undefined;
}

/** Back in time, by the probe's gaps. */
export function judgeBack(timeline: Timeline, at: Instants): { complaints: string[]; backMs: number | undefined } {
  const complaints: string[] = [];
  const firstFrozen = timeline.markers.find(({ state }) => state !== undefined)?.ns;
  const leaseEnd =
    firstFrozen === undefined ? at.shotNs : Math.max(firstFrozen, at.renews ? at.shotNs : 0) + at.leaseMs * 1e6;
  const holdEnd = Math.max(at.atOnce ? at.shotNs : leaseEnd, at.stalledUntilNs ?? 0);
  let worst: number | undefined;
  for (const directory of DIRECTORIES) {
    if (directory === at.foreignFrozen) continue;
    for (const { startNs, endNs, open, directory: of } of timeline.gaps) {
      if (of !== directory || endNs <= at.shotNs) continue;
      if (at.thrashes === true && !wasMarked(timeline, startNs, endNs)) continue;
      const standsStillMs = runningMs(timeline, Math.max(startNs, holdEnd), endNs);
      const isFirst = startNs <= holdEnd;
      if (isFirst) worst = Math.max(worst ?? -Infinity, endNs > holdEnd ? standsStillMs : (endNs - holdEnd) / 1e6);
      if (open) complaints.push(`${directory} takes no writes: none since ${standsStillMs} ms`);
      else if (endNs > holdEnd && standsStillMs > PROMISES.backMs)
        complaints.push(
          `${directory} took ${isFirst ? 'its first write after the hold ended' : 'a write'} only after ${standsStillMs} ms (promised: ${PROMISES.backMs})`,
        );
    }
  }
  for (const { directory, errno } of timeline.probeErrors)
    complaints.push(`a write to ${directory} failed with errno ${errno}`);
  return { complaints, backMs: worst === undefined ? undefined : Math.round(worst) };
}

function wasMarked(timeline: Timeline, fromNs: number, toNs: number): boolean {
  const within = timeline.markers.filter(({ ns }) => ns > fromNs && ns <= toNs);
  return [markerAt(timeline, fromNs), ...within.map(({ state }) => state)].some((state) => state !== undefined);
}

/** All was frozen, and nothing thawed yet, at some instant of it. */
function wasHeld(timeline: Timeline, { startNs, endNs }: Timeline['shortGaps'][number]): boolean {
  const within = timeline.markers.filter(({ ns }) => ns > startNs && ns <= endNs);
  return [markerAt(timeline, startNs), ...within.map(({ state }) => state)].some(
    (state) => state !== undefined && state.frozen > 0 && state.intended === 0 && state.thawed === 0,
  );
}

/** By how much the watcher may learn later than the agent that a process has ended, on one processor. */
const SEEN_LATE_NS = 50e6;

/** Every writer whose freeze was started is released in time, and none is let run past its limit. */
export function judgeWriters(
  timeline: Timeline,
  at: Instants,
): { complaints: string[]; waiting: string[]; releaseMs: number | undefined } {
  const complaints: string[] = [];
  const waiting: string[] = [];
  const { phases } = timeline;
  let worst: number | undefined;
  const limitMs = at.agentDies ? PROMISES.releaseByNextAgentMs : PROMISES.releaseMs;
  const over = (phase: (typeof phases)[number]): number | undefined => phase.endNs ?? phase.goneNs;
  for (const writer of WRITERS) {
    const freeze = phases.findLast((each) => each.writer === writer && each.phase === 'freeze');
    if (freeze === undefined) continue;
    const thaws = phases.filter(
      (each) => each.writer === writer && each.phase === 'thaw' && each.beginNs > freeze.beginNs,
    );
    // A resident's hold ends with its process, too.
    const died =
      writer === RESIDENT && freeze.goneNs !== undefined ? [{ beginNs: freeze.goneNs, endNs: freeze.goneNs }] : [];
    const [first] = [...thaws, ...died];
    if (first === undefined || ('phase' in first && over(first) === undefined)) {
      waiting.push(`${writer} was not released`);
      continue;
    }
    // Its turn: when the last thing happened that it had to wait for.
    const before = [
      at.shotNs,
      ...at.letGoNs,
      ...timeline.markers.map(({ ns }) => ns),
      ...timeline.gaps.map(({ endNs }) => endNs),
      ...phases.flatMap((each) => [each.beginNs, over(each) ?? each.beginNs]),
      ...phases.flatMap(({ goneNs }) => (goneNs === undefined ? [] : [goneNs - SEEN_LATE_NS])),
    ].filter((ns) => ns < first.beginNs);
    const waitedMs = runningMs(timeline, Math.max(...before), first.beginNs);
    worst = Math.max(worst ?? 0, waitedMs);
    const promisedMs = limitMs + (first.beginNs < (at.stalledUntilNs ?? 0) ? THAW_ANSWER_MS : 0);
    if (waitedMs > promisedMs)
      complaints.push(
        `thaw of ${writer} was started ${Math.round(waitedMs)} ms after its turn (promised: ${promisedMs})`,
      );
  }
  for (const each of phases) {
    const limit = WRITER_LIMITS_MS[each.phase as keyof typeof WRITER_LIMITS_MS];
    const tookMs = runningMs(timeline, each.beginNs, over(each) ?? timeline.nowNs);
    // A stopped agent kills nobody before it goes on.
    const excusedMs = Math.max(0, (Math.max(...at.letGoNs, at.shotNs) - each.beginNs) / 1e6);
    if (tookMs > Math.max(limit, excusedMs) + KILL_SLACK_MS)
      complaints.push(`${each.phase} of ${each.writer} ran for ${Math.round(tookMs)} ms (limit ${limit})`);
  }
  return { complaints, waiting, releaseMs: worst === undefined ? undefined : Math.round(worst) };
}

/** Not above what the data allow, and not above what the probe saw. */
export function judgeLevel(timeline: Timeline, told: Told, attempt: Attempt, foreignThawNs?: number): string[] {
  const { level, error, heldNs } = attempt;
  const complaints: string[] = [];
  const said = `${level ?? 'nothing'} (${error ?? 'no word'})`;
  const expected: ConsistencyLevel | undefined =
    told === 'nothing' ? undefined : told.startsWith('up to ') ? undefined : (told as ConsistencyLevel);
  if (told === 'nothing' && level !== undefined) complaints.push(`told ${said}, expected nothing`);
  if (expected !== undefined && level !== expected) complaints.push(`told ${said}, expected ${expected}`);
  if (told.startsWith('up to ') && level !== undefined && !satisfies(told.slice(6) as ConsistencyLevel, level))
    complaints.push(`told ${said}, expected at most ${told.slice(6)}`);
  // By the probe alone: what claims to have been held took no write while the requester believed so.
  if (level === undefined || !satisfies(level, 'filesystem')) return complaints;
  if (heldNs === undefined) return [...complaints, `told ${said}, but nothing tells when it was held`];
  if (foreignThawNs !== undefined && foreignThawNs < heldNs.to)
    complaints.push(`told ${said}, though a stranger thawed`);
  for (const directory of DIRECTORIES) {
    const covers = (gap: Timeline['shortGaps'][number]): boolean =>
      gap.directory === directory && gap.startNs <= heldNs.from && gap.endNs >= heldNs.to;
    // What is quick holds for less than a gap: then the marker must say so, too.
    const held = timeline.gaps.some(covers) || timeline.shortGaps.some((gap) => covers(gap) && wasHeld(timeline, gap));
    if (!held) complaints.push(`told ${said}, but ${directory} took a write while the requester believed it held`);
  }
  if (!satisfies(level, 'application')) return complaints;
  for (const { writer, goneNs } of timeline.holds)
    if (goneNs !== undefined && goneNs < heldNs.to) complaints.push(`told ${said}, but the hold of ${writer} had died`);
  return complaints;
}
