// At start: what a dead predecessor left. Finding and releasing it is freeze/'s (recovery.ts there); here it is told.
import { describeError } from '../errors.js';
import type { CoordinatorOptions } from '../freeze/options.js';
import { recoverSessions } from '../freeze/recovery.js';
import type { Logger } from '../log.js';

/** Never throws: an agent that cannot be asked helps nobody who looks for what is still frozen. */
export async function recover(options: CoordinatorOptions, log: Logger): Promise<void> {
  try {
    for (const { session, requester, writers, problem } of await recoverSessions(options)) {
      const failed = problem !== undefined || writers.some(({ released }) => !released);
      log[failed ? 'error' : 'warn']({ session, requester, writers, problem }, 'a dead agent left this session');
    }
  } catch (error) {
    log.fatal({ error: describeError(error) }, 'something may still be frozen');
  }
}
