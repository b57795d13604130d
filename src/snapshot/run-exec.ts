// `exec`: a command sees the snapshots in place of the original paths.
import { CutError } from '../errors.js';
import { withSet } from './held-set.js';
import { processNote, type RunRecord } from './journal.js';
import type { SnapshotMachine } from './machine.js';
import type { SetPlan } from './planner.js';
import { startCommand } from './private-tree.js';
import type { TakeRequest } from './snapshot-set.js';
import { privateTree } from './tree.js';

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
  const { result, lost, left } = await withSet(machine, plan, { ...request, kind: 'exec' }, async (held, onLost) => {
    if (signals.abort.aborted) throw new CutError('E_INTERRUPTED', 'interrupted: the command was not started');
    const { mountable, record } = held.taken;
    request.onTaken(record);
    const tree = privateTree({ sources: plan.sources, mountable, stage: held.stage }, mounts);
    const command = await startCommand(tree, request.words);
    held.note({ command: processNote(command.pid) });
    const stop = signals.forward(command.kill);
    const end = (): void => {
      command.kill('SIGTERM');
    };
    onLost(end);
    const over = new AbortController();
    const timer = endAfter(request.ttlMs, () => {
      over.abort();
      end();
    });
    try {
      const exitCode = await command.exit;
      if (over.signal.aborted)
        throw new CutError('E_DEADLINE', `the command was ended after ${(request.ttlMs ?? 0) / 1000} s (--ttl)`);
      return exitCode;
    } finally {
      clearTimeout(timer);
      stop();
    }
  });
  if (left !== undefined) machine.options.note(`${left} (fsfreeze-snapshot gc removes it)`);
  if (lost !== undefined)
    throw new CutError('E_SNAPSHOT_LOST', `what the command read is not to be relied on: ${lost}`);
  return result;
}

function endAfter(ms: number | undefined, act: () => void): NodeJS.Timeout | undefined {
  return ms === undefined ? undefined : setTimeout(act, ms);
}
