// `exec`: a command sees the snapshots in place of the original paths.
import { CutError } from '../errors.js';
import { withSet } from './held-set.js';
import { processNote, type RunRecord } from './journal.js';
import type { SnapshotMachine } from './machine.js';
import type { SetPlan } from './planner.js';
import { startCommand, type Environment } from './private-tree.js';
import type { TakenSet, TakeRequest } from './snapshot-set.js';
import { tellWriters } from './tell-writers.js';
import { privateTree } from './tree.js';

/** Between SIGTERM and SIGKILL for a command whose time is over, or whose snapshots are lost. */
const END_LIMIT_MS = 10_000;

export interface ExecRequest extends Omit<TakeRequest, 'kind' | 'target'> {
  readonly words: readonly string[];
  /** The command is ended after this time. */
  readonly ttlMs?: number;
  /** Called when the command is about to be started. */
  readonly onTaken: (record: RunRecord) => void;
}

/** Of signals that were sent to us; `abort`: nothing is started any more. */
export interface Signals {
  readonly abort: AbortSignal;
  /** Calls `act` for each until what it gives is called. */
  readonly forward: (act: (signal: NodeJS.Signals) => void) => () => void;
}

/**
 * Gives the command's exit code. Throws a CutError if a snapshot died under it, however it ended, or if its time was
 * over; and what planning and taking throw.
 */
export async function runExec(
  machine: SnapshotMachine,
  plan: SetPlan,
  request: ExecRequest,
  signals: Signals,
): Promise<number> {
  const { mounts } = (await machine.options.look('own')).table;
  let taken: TakenSet | undefined;
  const used = withSet(machine, plan, { ...request, kind: 'exec' }, async (held, onLost) => {
    taken = held.taken;
    const { mountable, record } = taken;
    request.onTaken(record);
    const tree = privateTree({ sources: plan.sources, mountable, stage: held.stage }, mounts);
    const command = await startCommand(tree, request.words, environmentOf(record), signals.abort);
    const stop = signals.forward(command.kill);
    let patience: NodeJS.Timeout | undefined;
    const end = (): void => {
      command.kill('SIGTERM');
      patience ??= setTimeout(() => {
        command.kill('SIGKILL');
      }, END_LIMIT_MS);
    };
    const over = new AbortController();
    const timer = endAfter(request.ttlMs, () => {
      over.abort();
      end();
    });
    // Noted first: whoever collects after us has to end it.
    held.note({ command: processNote(command.pid) });
    command.begin();
    onLost(end);
    try {
      const exitCode = await command.exit;
      if (over.signal.aborted)
        throw new CutError('E_DEADLINE', `the command was ended after ${(request.ttlMs ?? 0) / 1000} s (--ttl)`);
      return exitCode;
    } finally {
      clearTimeout(timer);
      clearTimeout(patience);
      stop();
    }
  });
  const { result, lost, left } = await used.catch(async (error: unknown) => {
    await tellWriters(machine, taken?.report?.session, 'failed', signals.abort);
    throw error;
  });
  // Below application a writer must keep what it could forget: the backup is none of its application.
  const isGood = result === 0 && lost === undefined && taken?.record.level === 'application';
  await tellWriters(machine, taken?.report?.session, isGood ? 'ok' : 'failed', signals.abort);
  if (left !== undefined) machine.options.note(`${left} (fsfreeze-snapshot gc removes it)`);
  if (lost !== undefined)
    throw new CutError('E_SNAPSHOT_LOST', `what the command read is not to be relied on: ${lost}`);
  return result;
}

/** What a backup program may label its backup with, and keep beside it. */
function environmentOf({ run, level = 'none', artefacts }: RunRecord): Environment {
  // Undefined as well: what an outer run has set is of that one.
  return { FSFREEZE_RUN: run, FSFREEZE_LEVEL: level, FSFREEZE_ARTEFACTS: artefacts };
}

function endAfter(ms: number | undefined, act: () => void): NodeJS.Timeout | undefined {
  return ms === undefined ? undefined : setTimeout(act, ms);
}
