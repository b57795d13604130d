// One random run: a snapshot as it comes, a fault that waits for its instant, and the same judgement as in the matrix.
import { setTimeout as sleep } from 'node:timers/promises';
import type { GuestKind } from '../../src/testing/index.js';
import { judgeDeadGuest } from '../vm/faults/dead-guest.js';
import { conclude, SETTLE_MS, within, type Conclusion } from '../vm/faults/evidence.js';
import { endDaemons, faultRecords, foreignPlace, type Fault, type FaultName } from '../vm/faults/faults.js';
import type { GuestKeeper } from '../vm/faults/guest-keeper.js';
import type { Instants } from '../vm/faults/judge.js';
import type { Lab, Services } from '../vm/faults/lab.js';
import { cellOf, type Told } from '../vm/faults/matrix.js';
import { startClient, startTool, type Requester } from '../vm/faults/requesters.js';
import { markerAt, stepAt, type Step, type Timeline } from '../vm/faults/timeline.js';
import type { Lengths } from './calibration.js';
import { ConsoleWatch } from './console-watch.js';
import type { Draw } from './draw.js';
import { hostAct } from './host-acts.js';

const LEASE_MS = 2500;
const PAUSE_MS = 800;
/** What must outlast the lease, and the second in which a stopped agent is killed. */
const PAST_LEASE_MS = LEASE_MS + 1800;

export interface RandomResult extends Conclusion, Draw {
  readonly index: number;
  readonly kind: GuestKind;
  /** The step in which it really struck; undefined: the session was over. */
  readonly firedAt: Step | undefined;
  readonly tookMs: number;
}

/** What waits in the guest for the instant: words for `fault-lab strike`, or a file that a writer looks for. */
type Waiting =
  | { readonly kind: 'strike'; readonly words: readonly string[]; readonly tells: boolean }
  | { readonly kind: 'writer'; readonly file: string; readonly text: string };

const PHASES: Partial<Readonly<Record<Step, string>>> = { prepare: 'prepare', hold: 'freeze', release: 'thaw' };
const WRITER_ACTS: Partial<Readonly<Record<FaultName, string>>> = {
  'writer hangs': 'hang',
  'writer ignores SIGTERM': 'ignore-term',
  'writer forks a daemon that keeps its stdout': 'daemon',
  'writer floods stdout': 'flood',
  'writer dies while it holds': 'die',
};

function lastsLong(step: Step): boolean {
  return step === 'freeze' || step === 'frozen';
}

/** `stall`: the words that stall the disk. */
function waitingFor({ fault, step }: Draw, services: Services, delayUs: number, stall: readonly string[]): Waiting {
  const strike = (...words: string[]): Waiting => ({ kind: 'strike', words, tells: false });
  const blockMs = String(lastsLong(step) ? PAST_LEASE_MS : PAUSE_MS);
  const act = WRITER_ACTS[fault];
  const phase = PHASES[step];
  if (act !== undefined && phase !== undefined && !(act === 'die' && step === 'release'))
    return { kind: 'writer', file: `/run/fsb-lab/ctl/act.20-holder.${phase}`, text: `${act} ${delayUs}` };
  switch (fault) {
    case 'agent SIGKILL':
      return strike('signal', 'KILL', String(services.agent));
    case 'agent SIGSTOP':
      return strike('signal', 'STOP', String(services.agent));
    case "agent's event loop blocked":
      return strike('block', String(services.agent), blockMs);
    case 'freezer SIGKILL':
      return strike('signal', 'KILL', String(services.freezer));
    case 'freezer SIGSTOP':
      return strike('signal', 'STOP', String(services.freezer));
    case 'both SIGKILLed together':
      return strike('signal', 'KILL', String(services.agent), String(services.freezer));
    case 'guest out of memory':
      return strike('write', '/run/fsb-lab/ctl/hog', 'on');
    case 'writer hangs':
      return strike('held', 'STOP', '20-holder');
    case 'writer dies while it holds':
      return strike('held', 'KILL', '20-holder');
    case 'writer floods stdout':
      return strike('write', '/run/fsb-lab/ctl/act.20-holder.held', 'flood');
    case 'disk answers ENOSPC, or stalls':
      return strike(...stall);
    case 'foreign thaw':
      return strike('foreign', 'thaw', foreignPlace('thaw', step));
    case 'foreign freeze':
      return strike('foreign', 'freeze', foreignPlace('freeze', step));
    case 'writer ignores SIGTERM':
    case 'writer forks a daemon that keeps its stdout':
      throw new Error(`${fault} has no instant in ${step}`); // neither is ever drawn there
    case 'host tool SIGKILL':
    case 'host tool SIGSTOP':
    case 'agent channel closed':
    case 'agent channel stalls':
    case 'monitor lost':
    case 'QEMU SIGKILL':
    case 'QEMU paused and continued':
      return { kind: 'strike', words: ['none'], tells: true };
  }
}

/** Draws nothing: does what was drawn. Throws when the run could not be made. */
export async function runDraw(
  keeper: GuestKeeper,
  lengths: Lengths,
  drawn: Draw,
  index: number,
): Promise<RandomResult> {
  const start = performance.now();
  const { fault: name, step } = drawn;
  const fault: Fault = faultRecords[name];
  const lab = await keeper.lab();
  keeper.spend(); // until it is known to be sound
  const services = await lab.services();
  const starves = name === 'guest out of memory';
  const asked = starves ? patiently : async <T>(ask: () => Promise<T>): Promise<T> => await ask();
  const leaseMs = starves ? 15_000 : LEASE_MS;
  if (starves) await armHog(lab);
  const lengthMs = lengths[step];
  const delayUs = Math.round(drawn.within * lengthMs * 1000);
  const stall = name === 'disk answers ENOSPC, or stalls' ? await lab.armStall() : undefined;
  const waiting = waitingFor(drawn, services, delayUs, stall?.words ?? []);
  await using words = new ConsoleWatch(lab.guest.consolePath);
  await arm(lab, waiting, step, delayUs);
  await using requester = await (fault.requester === 'tool' ? startTool : startClient)(lab, { leaseMs });
  const undoHost = waiting.kind === 'strike' && waiting.tells ? await onTold(words, requester, lab, name) : undefined;
  if (name === 'QEMU SIGKILL' && lab.guest.isOver) {
    const conclusion = await judgeDeadGuest(lab, requester, 'up to crash');
    return {
      index,
      kind: keeper.kind,
      ...drawn,
      ...conclusion,
      firedAt: step,
      tookMs: Math.round(performance.now() - start),
    };
  }
  const wasStruck =
    waiting.kind === 'strike' && waiting.tells ? true : await asked(async () => await struck(lab, requester));
  const lasts = lastsLong(step) ? PAST_LEASE_MS : PAUSE_MS;
  if (undoHost?.undo !== undefined || stall !== undefined || name.endsWith('SIGSTOP')) await sleep(lasts);
  await undoHost?.undo?.();
  await stall?.letGo();
  const letGoNs = [await asked(async () => await lab.nowNs())];
  const undo = async (): Promise<void> => {
    await goOnAll(lab, services);
    await endDaemons(lab);
  };
  if (name === 'agent SIGSTOP' || (name === 'freezer SIGSTOP' && !lastsLong(step) && step !== 'thaw')) {
    await undo();
    letGoNs.push(await lab.nowNs());
  }
  if (fault.agentDies === true && wasStruck) requester.giveUp();
  const attempt = await within(requester.done, SETTLE_MS, 'the requester');
  if (starves)
    await asked(async () => {
      await endHog(lab);
    });
  await asked(async () => {
    await lab.disarmStrike();
  });

  const timeline = await lab.timeline();
  const at = instantOf(timeline, waiting);
  const firedAt = at === undefined ? undefined : stepAt(timeline, at);
  const instants: Instants = {
    shotNs: at?.ns ?? timeline.nowNs,
    leaseMs,
    renews: fault.requester === 'tool',
    atOnce: fault.ends === 'at once',
    letGoNs: [...letGoNs, ...unblocked(timeline)],
    stalledUntilNs: stall === undefined ? undefined : letGoNs[0],
    agentDies: fault.agentDies === true,
    foreignFrozen: undefined,
    thrashes: starves,
  };
  const told = toldAt(name, firedAt);
  const conclusion = await conclude({ lab, told, fired: () => [], instants, attempt, requester, undo });
  if (conclusion.complaints.length === 0) keeper.keep();
  return { index, kind: keeper.kind, ...drawn, ...conclusion, firedAt, tookMs: Math.round(performance.now() - start) };
}

/**
 * A fault at an instant of its own may come a moment after its step: then what was told before it is true. And one that
 * only delays, for less than the lease, need not hurt: whether it did is seen by the probe (judgeLevel).
 */
function toldAt(name: FaultName, step: Step | undefined): Told {
  const cell = step === undefined ? undefined : cellOf(name, step);
  const { ends }: Fault = faultRecords[name];
  if (cell !== undefined && 'told' in cell && cell.told === 'up to crash' && !(ends === 'at once' && step !== 'thaw'))
    return 'up to application';
  if (cell === undefined || 'reason' in cell || cell.told === 'application') return 'up to application';
  if (cell.told === 'filesystem') return 'up to filesystem';
  return cell.told === 'nothing' ? 'up to crash' : cell.told;
}

async function armHog(lab: Lab): Promise<void> {
  const { arm } = faultRecords['guest out of memory'];
  await arm({ lab });
}

const HOG_LIMIT_MS = 120_000;

/** A guest without memory may answer nobody for a while, and do all the same what it was asked for. */
async function patiently<T>(ask: () => Promise<T>): Promise<T> {
  const end = performance.now() + HOG_LIMIT_MS;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (performance.now() > end) throw error;
    }
  }
}

/** Nothing of it is left for the next run. */
async function endHog(lab: Lab): Promise<void> {
  await lab.guest.exec(
    'systemctl kill -s KILL fsb-hog 2>/dev/null; ! grep -q /srv/swap /proc/swaps || swapoff /srv/swap',
    { timeoutMs: 60_000 },
  );
}

async function arm(lab: Lab, waiting: Waiting, step: Step, delayUs: number): Promise<void> {
  if (waiting.kind === 'writer') {
    await lab.guest.exec(`printf '%s' '${waiting.text}' >${waiting.file}`);
    return;
  }
  const words = ['--when', step, '--delay-us', String(delayUs), ...(waiting.tells ? ['--tell'] : []), ...waiting.words];
  await lab.armStrike(words);
}

/** Waits for the fault, or for the requester's end if it comes first. */
async function struck(lab: Lab, requester: Requester): Promise<boolean> {
  for (;;) {
    const isOver = await Promise.race([requester.done.then(() => true), sleep(30).then(() => false)]);
    if (await lab.hasStruck()) return true;
    if (isOver) return false;
  }
}

async function onTold(words: ConsoleWatch, requester: Requester, lab: Lab, name: FaultName) {
  const came = await Promise.race([words.struck.then(() => true), requester.done.then(() => false)]);
  return came ? await hostAct(lab, requester, name) : undefined;
}

function instantOf(timeline: Timeline, waiting: Waiting): Timeline['shots'][number] | undefined {
  if (waiting.kind === 'strike') return timeline.shots[0];
  const act = timeline.notes.find(([kind]) => kind === 'act');
  const ns = Number(act?.[4]);
  return act === undefined ? undefined : { ns, state: markerAt(timeline, ns) };
}

function unblocked(timeline: Timeline): number[] {
  return timeline.notes.filter(([kind]) => kind === 'unblocked').map(([, , ns]) => Number(ns));
}

async function goOnAll(lab: Lab, { agent, freezer }: Services): Promise<void> {
  const goOn = (pid: number): string => `case $(cut -d' ' -f3 /proc/${pid}/stat) in T) kill -CONT ${pid};; esac`;
  await lab.guest.exec(`{ ${goOn(agent)}; ${goOn(freezer)}; } 2>/dev/null; :`);
}
