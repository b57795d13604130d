// The last word to the writers, once the command has ended: they may forget what only a good backup made superfluous. It
// takes nothing from the backup, be it heard or not.
import type { CompleteOutcome } from '../consistency.js';
import { describeError } from '../errors.js';
import type { SnapshotMachine } from './machine.js';
import { Requester } from './requester.js';

/** `session`: undefined where nothing was held. `abort` gives up waiting; the agent goes on. Never throws. */
export async function tellWriters(
  { options }: SnapshotMachine,
  session: string | undefined,
  outcome: CompleteOutcome,
  abort: AbortSignal,
): Promise<void> {
  if (session === undefined) return;
  try {
    await using requester = await Requester.connect(options.agentSocket);
    await requester.complete(session, outcome, abort);
  } catch (error) {
    options.note(`the writers may not have heard that the command has ended (${outcome}): ${describeError(error)}`);
  }
}
