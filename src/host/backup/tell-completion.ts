// The last word to the guest, once a run is there, or is given up: its writers may forget what only the run made
// superfluous, or are told that they must not. The agent is asked anew: while disks were copied, for hours maybe, its socket
// was free for others. What goes wrong here takes nothing from the run.
import { describeError } from '../../errors.js';
import { completionOf } from '../create/tell-guest.js';
import type { HeldCut } from '../create/held-cut.js';
import { clip } from '../guest/clip.js';
import type { Manifest } from '../sets/manifest.js';
import type { BackupOptions } from './backup-at.js';

/** What the writers were told; undefined if there is nobody to tell. Never throws. */
export async function tellCompletion(
  { vm, openAgent, agentLimits }: Pick<BackupOptions, 'vm' | 'openAgent' | 'agentLimits'>,
  held: HeldCut | undefined,
  outcome: 'ok' | 'failed',
  signal: AbortSignal,
): Promise<Manifest['completion']> {
  const session = held?.report?.session;
  if (session === undefined || vm.agent === undefined) return undefined;
  try {
    await using agent = await openAgent(vm.agent, agentLimits);
    return await completionOf(agent.coordinator, session, outcome, signal);
  } catch (error) {
    return { outcome, writers: [], error: clip(`telling the guest failed: ${describeError(error)}`) };
  }
}
