// What is known of a guest after a fault, gathered and judged: it is waited for until it is back (or should long have
// been), its timeline is judged (judge.ts), the next snapshot is made, and what is left is looked for.
import { setTimeout as sleep } from 'node:timers/promises';
import { describeError } from '../../../src/errors.js';
import { waitForAgent } from '../../../src/testing/index.js';
import { requester as agentClient } from '../../support/agent-guest.js';
import type { FaultName } from './faults.js';
import { judgeBack, judgeLevel, judgeWriters, type Instants, type Measures } from './judge.js';
import { DIRECTORIES } from './lab-parts.js';
import type { Lab } from './lab.js';
import { leftInGuest, leftOnHost } from './leftovers.js';
import type { Told } from './matrix.js';
import type { Attempt, Requester } from './requesters.js';
import { stepAt, type Step, type Timeline } from './timeline.js';

/** From the moment all is let go, for whatever has its own limits: writers, the tool, an agent started anew. */
export const SETTLE_MS = 45_000;

/** For the agent that was started anew, until it answers. */
const NEXT_AGENT_MS = 30_000;

/** A look costs a fork or two, in an emulated guest a fifth of a second of a processor. */
const LOOK_AGAIN_MS = 300;

export interface Evidence {
  readonly lab: Lab;
  readonly told: Told;
  /** Complaints about the fault itself: not there, not at its step, without effect. */
  readonly fired: (timeline: Timeline) => readonly string[];
  readonly instants: Instants;
  readonly attempt: Attempt;
  readonly requester: Requester;
  readonly undo: () => Promise<void>;
}

export interface Conclusion extends Measures {
  readonly complaints: readonly string[];
  /** The level, or why there is none. */
  readonly told: string;
  /** What the guest noted. */
  readonly timeline: string;
}

/** Waits until the guest is back, and gives every complaint there is. */
export async function conclude(evidence: Evidence): Promise<Conclusion> {
  const { lab, told, attempt } = evidence;
  const timeline = await settled(lab, evidence.instants);
  const foreignFrozen = strangersHold(timeline);
  const instants = { ...evidence.instants, foreignFrozen };
  const back = judgeBack(timeline, instants);
  const writers = judgeWriters(timeline, instants);
  const foreignThaw = timeline.notes.find(
    ([kind, what, , code]) => kind === 'foreign' && what === 'thaw' && code === '0',
  );
  const foreignThawNs = foreignThaw === undefined ? undefined : Number(foreignThaw[4]);
  const complaints = [
    ...evidence.fired(timeline),
    ...back.complaints,
    ...writers.complaints,
    ...writers.waiting,
    ...judgeLevel(timeline, told, attempt, foreignThawNs),
  ];
  if (foreignFrozen !== undefined) complaints.push(...(await judgeForeign(lab, foreignFrozen)));
  await evidence.undo();
  const { requester } = evidence;
  // By the tool's own sockets: that is where its journal says that the VM is.
  if (requester.tool !== undefined) complaints.push(...(await leftOnHost(lab, requester.tool)));
  await requester[Symbol.asyncDispose](); // one client at a time is served by the channel
  complaints.push(...(await nextSnapshot(lab)));
  complaints.push(...(await leftInGuest(lab)));
  const said = attempt.level ?? `nothing: ${attempt.error ?? 'no word'}`;
  return {
    complaints,
    told: said,
    backMs: back.backMs,
    releaseMs: writers.releaseMs,
    timeline: await lab.rawTimeline(),
  };
}

/** Waits until everything takes writes and every writer is released, or the promises are long past. */
async function settled(lab: Lab, at: Instants): Promise<Timeline> {
  const end = performance.now() + SETTLE_MS;
  for (;;) {
    const timeline = await lab.timeline();
    const strangers = strangersHold(timeline);
    const isOpen = timeline.gaps.some(({ open, directory }) => open && directory !== strangers);
    const isMarked = timeline.markers.at(-1)?.state !== undefined;
    const { waiting } = judgeWriters(timeline, at);
    if ((!isOpen && !isMarked && waiting.length === 0) || performance.now() > end) return timeline;
    await sleep(LOOK_AGAIN_MS);
  }
}

/** Where a stranger's FIFREEZE was answered 0. */
function strangersHold({ notes }: Timeline): string | undefined {
  return notes.find(([kind, what, , code]) => kind === 'foreign' && what === 'freeze' && code === '0')?.[2];
}

type Notes = Timeline['notes'];
const ended = (notes: Notes): boolean =>
  notes.some(([kind, , state = '']) => kind === 'process' && 'ZX-'.includes(state));
const stopped = (notes: Notes): boolean => notes.some(([kind, , state]) => kind === 'process' && state === 'T');
const misbehaved = (notes: Notes): boolean => notes.some(([kind]) => kind === 'act');
const asked = (notes: Notes): boolean => notes.some(([kind]) => kind === 'foreign');

/** What the guest notes of a fault that took effect. What is done by the host's own hand throws if it cannot be done. */
const EFFECTS: Partial<Readonly<Record<FaultName, (notes: Notes) => boolean>>> = {
  'agent SIGKILL': ended,
  'agent SIGSTOP': stopped,
  "agent's event loop blocked": (notes) => notes.some(([kind]) => kind === 'blocked'),
  'freezer SIGKILL': ended,
  'freezer SIGSTOP': stopped,
  'both SIGKILLed together': (notes) => notes.filter((note) => ended([note])).length === 2,
  'guest out of memory': (notes) => {
    const [, , killer, leastSwap] = notes.find(([kind]) => kind === 'hogged') ?? [];
    const [, , swapBefore] = notes.find(([kind]) => kind === 'hog') ?? [];
    return killer === '9' && Number(leastSwap) < Number(swapBefore);
  },
  'writer hangs': (notes) => misbehaved(notes) || stopped(notes),
  'writer ignores SIGTERM': misbehaved,
  'writer forks a daemon that keeps its stdout': misbehaved,
  'writer floods stdout': misbehaved,
  'writer dies while it holds': (notes) => misbehaved(notes) || ended(notes),
  'foreign thaw': asked,
  'foreign freeze': asked,
};

/** What takes no writes while a step is held open: else its fault would show nothing. */
const STANDS_STILL: Partial<Readonly<Record<Step, readonly string[]>>> = {
  freeze: ['/'],
  frozen: DIRECTORIES,
  thaw: ['/srv/data'],
};

/** It struck in that step, and took effect. */
export function judgeFired(timeline: Timeline, name: FaultName, step: Step, at: Instants): string[] {
  const shot = timeline.shots.find(({ ns }) => ns === at.shotNs);
  if (shot === undefined) return ['the fault was not noted'];
  const was = stepAt(timeline, shot);
  const tookEffect = EFFECTS[name]?.(timeline.notes) ?? true;
  // What is quick is thawed again within less than a gap.
  const waits = (directory: string): boolean =>
    [...timeline.gaps, ...timeline.shortGaps].some(
      (gap) => gap.directory === directory && gap.startNs <= shot.ns && gap.endNs >= shot.ns,
    );
  const writable = STANDS_STILL[step]?.filter((directory) => !waits(directory)) ?? [];
  return [
    ...writable.map((directory) => `${directory} took writes when the fault struck`),
    ...(was === step ? [] : [`the fault struck at ${was ?? 'no step'}, not at ${step}`]),
    ...(tookEffect ? [] : ['nothing shows that the fault took effect']),
  ];
}

/** What a stranger froze is still frozen. It is thawed now, and FITHAW tells: of what is not frozen it answers EINVAL. */
async function judgeForeign(lab: Lab, directory: string): Promise<string[]> {
  await lab.strike(['foreign', 'thaw', directory]);
  const { notes } = await lab.timeline();
  const held = notes.some(([kind, what, dir, code]) => {
    return kind === 'foreign' && what === 'thaw' && dir === directory && code === '0';
  });
  return held ? [] : [`${directory}, which a stranger froze, was thawed`];
}

export async function nextSnapshot(lab: Lab): Promise<string[]> {
  await lab.guest.exec(`echo mark >>/run/fsb-lab/timeline; rm -f /run/fsb-lab/ctl/*`);
  try {
    await waitForAgent(lab.guest, NEXT_AGENT_MS); // a serial line loses what it is sent before
    await using host = await agentClient(lab.guest, { freezeMs: 30_000 });
    const session = await host.coordinator.freeze({ requester: 'next', leaseMs: 20_000, require: 'application' });
    const { level, outcome } = await session.thaw();
    return level === 'application' && outcome === 'ok' ? [] : [`the next snapshot: ${outcome}, ${level}`];
  } catch (error) {
    return [`the next snapshot: ${describeError(error)}`];
  }
}

export async function within<T>(work: Promise<T>, limitMs: number, what: string): Promise<T> {
  const timer = new AbortController();
  const late = sleep(limitMs, undefined, { signal: timer.signal }).then(() => {
    throw new Error(`${what} had not come to its end after ${limitMs} ms`);
  });
  late.catch(() => undefined);
  try {
    return await Promise.race([work, late]);
  } finally {
    timer.abort();
  }
}
