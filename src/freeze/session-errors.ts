// What a session throws, made of what went wrong in it and of its report. Pure.
import type { FreezeReport } from '../consistency.js';
import { describeError, QuiesceError, StateError, ThawUnconfirmedError, UsageError } from '../errors.js';

export function aborted(cause?: unknown): QuiesceError {
  return new QuiesceError('E_ABORTED', 'the attempt was aborted', { cause });
}

/** `unconfirmed`: why it is not known that everything is thawed; nothing matters beside it. */
export function sessionFailure(error: unknown, report: FreezeReport, unconfirmed: string | undefined): Error {
  if (unconfirmed !== undefined) return thawUnconfirmed(unconfirmed, report, error);
  if (error instanceof StateError || error instanceof UsageError) return error;
  if (error instanceof QuiesceError)
    return new QuiesceError(error.code, error.message, { facts: { ...error.facts, report }, cause: error.cause });
  // Its message is all that there is to say: as a cause it would be told once more.
  return new QuiesceError('E_QUIESCE', describeError(error), { facts: { report } });
}

export function thawUnconfirmed(why: string, report: FreezeReport, cause?: unknown): ThawUnconfirmedError {
  return new ThawUnconfirmedError('E_THAW', why, { facts: { report }, ...(cause === undefined ? {} : { cause }) });
}

export function notFrozen(session: string, why: string, report: FreezeReport): QuiesceError {
  return new QuiesceError('E_EXPIRED', `session ${session} is not frozen any more: ${why}`, { facts: { report } });
}
