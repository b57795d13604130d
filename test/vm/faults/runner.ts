// One cell of the matrix, from a guest that is as new to the next snapshot. What is expected: matrix.ts; what is a complaint:
// judge.ts; the guest that is gone: dead-guest.ts.
import { setTimeout as sleep } from 'node:timers/promises';
import { describeError } from '../../../src/errors.js';
import { conclude, judgeFired, SETTLE_MS, within } from './evidence.js';
import { judgeDeadGuest } from './dead-guest.js';
import { faultAt, LEASE_MS, type FaultName, type Scene } from './faults.js';
import type { GuestKeeper } from './guest-keeper.js';
import type { Instants, Measures } from './judge.js';
import type { Lab } from './lab.js';
import { cellOf, type CellRun, type Told } from './matrix.js';
import { startClient, startTool } from './requesters.js';
import { prepareStep, reachStep } from './steps.js';
import type { Step, Timeline } from './timeline.js';

const LONG_LEASE_MS = 15_000;

export interface CellResult extends CellRun, Measures {
  readonly complaints: readonly string[];
  readonly told: string;
  readonly tookMs: number;
  /** What the guest noted, for a look at a cell that failed. */
  readonly timeline: string;
}

/**
 * Runs one cell in the keeper's guest. Never throws for what it finds: that is in `complaints`. Throws for a
 * cell that cannot exist.
 */
export async function runCell(
  { fault: name, step }: Pick<CellRun, 'fault' | 'step'>,
  keeper: GuestKeeper,
): Promise<CellResult> {
  const cell = cellOf(name, step);
  if (!('told' in cell)) throw new Error(`${name} at ${step} cannot exist: ${cell.reason}`);
  const start = performance.now();
  const atEnd: (() => Promise<void>)[] = [];
  const lab = await keeper.lab();
  keeper.spend(); // until it is known to be sound
  let result: Found;
  try {
    result = await act(lab, name, step, cell.told, atEnd);
  } catch (error) {
    const seen = await lab.rawTimeline().catch(() => '');
    const complaints = [describeError(error), ...(await keeper.lastWords())];
    result = { complaints, told: '', backMs: undefined, releaseMs: undefined, timeline: seen };
  } finally {
    for (const undo of atEnd.reverse()) await undo().catch(() => undefined);
  }
  if (result.complaints.length === 0 && faultAt(name, step).spends !== true) keeper.keep();
  await keeper.settle();
  return { fault: name, step, kind: keeper.kind, ...result, tookMs: Math.round(performance.now() - start) };
}

type Found = Omit<CellResult, 'tookMs' | keyof CellRun>;

async function act(lab: Lab, name: FaultName, step: Step, told: Told, atEnd: (() => Promise<void>)[]): Promise<Found> {
  const fault = faultAt(name, step);
  // Where the lease is no part of it, a busy machine must not make it one.
  const leaseMs = fault.leaseMs ?? (told.startsWith('up to') || told === 'nothing' ? LEASE_MS : LONG_LEASE_MS);
  const services = await lab.services();
  const before: Omit<Scene, 'requester'> = { lab, step, services, leaseMs, atEnd: (undo) => atEnd.push(undo) };
  await fault.arm?.(before);
  await prepareStep(lab, step);
  const options = { leaseMs, words: fault.words?.(before) ?? [] };
  const requester = await (fault.requester === 'tool' ? startTool : startClient)(lab, options);
  atEnd.push(async () => {
    await requester[Symbol.asyncDispose]();
  });
  const held = await reachStep(lab, step, requester);
  const scene: Scene = { ...before, requester };
  const struck = await fault.strike(scene);
  if (name === 'QEMU SIGKILL') return await judgeDeadGuest(lab, requester, told);

  const lastsMs = typeof fault.lastsMs === 'number' ? fault.lastsMs : (fault.lastsMs?.[step] ?? 0);
  const staysSo = fault.staysSo?.includes(step) === true;
  const letGoNs: number[] = [];
  const undo = async (): Promise<void> => {
    await struck.undo?.();
  };
  if (fault.holds?.includes(step) === true) {
    await sleep(lastsMs);
    if (!staysSo) await undo();
    await held.letGo();
    letGoNs.push(await lab.nowNs());
  } else {
    await held.letGo();
    if (fault.mutes !== true) letGoNs.push(await lab.nowNs());
    await sleep(lastsMs);
    await undo();
    letGoNs.push(await lab.nowNs());
  }

  if (fault.agentDies === true && (fault.ends === 'at once' || lastsMs > leaseMs)) requester.giveUp();
  const attempt = await within(requester.done, SETTLE_MS, 'the requester');
  const instants: Instants = {
    shotNs: struck.ns,
    leaseMs,
    renews: fault.requester === 'tool',
    atOnce: fault.ends === 'at once',
    letGoNs,
    stalledUntilNs: held.stalls ? letGoNs[0] : name === 'disk answers ENOSPC, or stalls' ? letGoNs.at(-1) : undefined,
    agentDies: fault.agentDies === true,
    foreignFrozen: undefined,
  };
  const fired = (timeline: Timeline): string[] => judgeFired(timeline, name, step, instants);
  return await conclude({ lab, told, fired, instants, attempt, requester, undo });
}
