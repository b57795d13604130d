// At start: tells what a dead predecessor left, and notes that the host is owed an error for a guest that was held when
// the agent died. What was left is found and released by src/freeze/session/recovery.ts.
import { describeError, ThawUnconfirmedError } from '../errors.js';
import type { CoordinatorOptions } from '../freeze/options.js';
import { recoverSessions, type RecoveredSession } from '../freeze/session/recovery.js';
import { withDefaults } from '../freeze/settings.js';
import { untilThawed } from '../freeze/freezer/until-thawed.js';
import type { Logger } from '../log.js';
import { lateThawNote, leaveNote } from './late-thaw-note.js';

const DIED = 'the agent died while the guest was held: the snapshot is not consistent';

export interface LeftFrozen {
  /** Only if something may still be frozen: settles when nothing is any more. Never rejects. */
  readonly thawed?: Promise<void>;
}

/**
 * Never throws: an agent that cannot be asked helps nobody who looks for what is still frozen. The log must be held
 * while this runs: it may lie on what the predecessor froze.
 */
export async function recoverPredecessor(options: CoordinatorOptions, log: Logger): Promise<LeftFrozen> {
  const note = lateThawNote(withDefaults(options).runtimeDir);
  const tell = (sessions: readonly RecoveredSession[]): void => {
    for (const { session, requester, writers, problem } of sessions) {
      const failed = problem !== undefined || writers.some(({ released }) => !released);
      log[failed ? 'error' : 'warn']({ session, requester, writers, problem }, 'a dead agent left this session');
    }
    if (sessions.every(({ ended }) => ended)) return;
    if (note.read() === undefined) leaveNote(note, DIED, log);
  };
  try {
    await recoverSessions(options, tell);
    return {};
  } catch (error) {
    const text = error instanceof ThawUnconfirmedError ? 'something may still be frozen' : 'not all was looked at';
    log.fatal({ error: describeError(error) }, text);
    return { thawed: untilThawed(withDefaults(options)) };
  }
}
