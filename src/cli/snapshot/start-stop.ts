// `start-snapshot` and `stop-snapshot`: dragonsdawn-snapshot's wrappers, for backup programs that can only call something
// before and something after.
import { UnreachableError } from '../../errors.js';
import { startDetached } from '../../snapshot/detached.js';
import type { SnapshotMachine } from '../../snapshot/machine.js';
import type { ExitCode } from './exit-codes.js';
import { listRuns, releaseRun } from './runs.js';

/** `given`: the words of the command line, without its name. Gives the holder's exit code if that ended at once. */
export async function startSnapshot(
  { options }: SnapshotMachine,
  given: readonly string[],
  streams: { readonly stdout: (text: string) => void; readonly stderr: (text: string) => void },
): Promise<ExitCode> {
  const { said, exitCode = 0 } = await startDetached([...options.self, ...given, '--no-stdin'], streams.stderr);
  streams.stdout(said);
  return exitCode;
}

/** Releases all that start-snapshot began. Throws an UnreachableError if there is nothing. */
export async function stopSnapshot(machine: SnapshotMachine): Promise<readonly string[]> {
  const runs = listRuns(machine).filter(({ isDetached }) => isDetached);
  if (runs.length === 0) throw new UnreachableError('E_NO_RUN', 'start-snapshot has begun nothing that is held');
  for (const { run } of runs) await releaseRun(machine, run);
  return runs.map(({ run }) => run);
}
