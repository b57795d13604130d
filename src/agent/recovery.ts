// At start: what a dead predecessor left. Finding and releasing it is freeze/'s (recovery.ts there); here it is told,
// and the host is owed an error for a guest that was held when the agent died.
import { describeError, ThawUnconfirmedError } from '../errors.js';
import type { CoordinatorOptions } from '../freeze/options.js';
import { recoverSessions, type RecoveredSession } from '../freeze/session/recovery.js';
import { withDefaults } from '../freeze/settings.js';
import { untilThawed } from '../freeze/freezer/until-thawed.js';
import type { Logger } from '../log.js';
import { owedNote } from './late-thaw-note.js';

const DIED = 'the agent died while the guest was held: the snapshot is not consistent';

export interface Recovery {
  /** Only if something may still be frozen: settles when nothing is any more. Never rejects. */
  readonly thawed?: Promise<void>;
}

/**
 * Never throws: an agent that cannot be asked helps nobody who looks for what is still frozen. While it runs the log
 * must be held: what the predecessor froze may be what it lies on.
 */
export async function recover(options: CoordinatorOptions, log: Logger): Promise<Recovery> {
  const note = owedNote(withDefaults(options).runtimeDir);
  const tell = (sessions: readonly RecoveredSession[]): void => {
    for (const { session, requester, writers, problem } of sessions) {
      const failed = problem !== undefined || writers.some(({ released }) => !released);
      log[failed ? 'error' : 'warn']({ session, requester, writers, problem }, 'a dead agent left this session');
    }
    if (sessions.every(({ ended }) => ended)) return;
    try {
      if (note.read() === undefined) note.write(DIED);
    } catch (error) {
      log.error({ error: describeError(error) }, 'what the host is owed cannot be noted');
    }
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
