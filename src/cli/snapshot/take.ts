// The commands that take snapshots: exec, dragonsdawn-snapshot's call, and their dry run.
import { closeSync, openSync } from 'node:fs';
import { collectWhileWaiting } from '../../agent/v8-tuning.js';
import { printableJson } from '../../printable.js';
import type { RunRecord } from '../../snapshot/journal.js';
import type { SnapshotMachine } from '../../snapshot/machine.js';
import type { SetPlan } from '../../snapshot/planner.js';
import { runExec, type Signals } from '../../snapshot/run-exec.js';
import { runTree } from '../../snapshot/run-tree.js';
import type { TakeOptions } from './command-line.js';
import { describePlan, describeRun, planView } from './describe.js';

const STDOUT_FD = 1;

export interface TakeContext {
  readonly machine: SnapshotMachine;
  readonly signals: Signals;
  readonly json: boolean;
  readonly tell: (value: object, rows: readonly string[]) => void;
  readonly note: (text: string) => void;
}

export interface TreeOptions {
  readonly take: TakeOptions;
  readonly target: string;
  readonly isDetached: boolean;
  readonly released: Promise<void>;
}

async function planned(
  { machine }: TakeContext,
  options: TakeOptions,
  extent: 'trees' | 'whole-mounts',
): Promise<SetPlan> {
  const { paths, requireSnapshot, size, provider } = options;
  return await machine.plan({
    paths,
    extent,
    requireSnapshot,
    ...(size === undefined ? {} : { size }),
    ...(provider === undefined ? {} : { provider }),
  });
}

/** Gives the exit code: the command's. */
export async function execCommand(
  context: TakeContext,
  options: TakeOptions,
  words: readonly string[],
): Promise<number> {
  const { machine, signals, note, json } = context;
  if (options.dryRun) return dryRun(context, await planned(context, options, 'trees'));
  await collected(context);
  const plan = await planned(context, options, 'trees');
  return await runExec(
    machine,
    plan,
    {
      ...takeRequest(machine, options),
      words,
      // Standard output is the command's.
      onTaken: (record) => {
        collectWhileWaiting();
        note(json ? printableJson(record) : describeRun(record).join('\n'));
      },
    },
    signals,
  );
}

/** Until `released`. Closes standard output when the tree is there: that is how its caller knows. */
export async function treeCommand(
  context: TakeContext,
  { take: options, target, isDetached, released }: TreeOptions,
): Promise<number> {
  const { machine, tell, signals } = context;
  if (options.dryRun) return dryRun(context, await planned(context, options, 'whole-mounts'));
  await collected(context);
  const plan = await planned(context, options, 'whole-mounts');
  const onReady = (record: RunRecord): void => {
    collectWhileWaiting();
    tell(record, [...describeRun(record), 'done']);
    closeSync(STDOUT_FD);
    // What is written there later must not reach a file that gets its number: the lowest that is free is this one.
    openSync('/dev/null', 'w');
  };
  const { abort } = signals;
  await runTree(machine, plan, { ...takeRequest(machine, options), target, isDetached, abort, onReady }, released);
  return 0;
}

function takeRequest(machine: SnapshotMachine, { paths, leaseMs, require, ttlMs }: TakeOptions) {
  const { agentSocket } = machine.options;
  return { paths, leaseMs, require, agentSocket, ...(ttlMs === undefined ? {} : { ttlMs }) };
}

function dryRun({ tell }: TakeContext, plan: SetPlan): number {
  tell(planView(plan), describePlan(plan));
  return 0;
}

/** What dead runs left takes room, and may keep a target busy. What stays is told, and does not keep us. */
async function collected({ machine, note }: TakeContext): Promise<void> {
  const { left } = await machine.collect();
  for (const { what, reason } of left) note(`left by a run that is over: ${what}: ${reason}`);
}
