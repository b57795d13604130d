// The errors that a session throws, made of what went wrong in it and of its report. Pure.
import { defined } from '../../defined.js';
import type { FreezeReport } from '../../consistency.js';
import { describeError, QuiesceError, StateError, ThawUnconfirmedError, UsageError } from '../../errors.js';
import type { LocalSession } from '../options.js';

export function aborted(cause?: unknown): QuiesceError {
  return new QuiesceError('E_ABORTED', 'the attempt was aborted', { cause });
}

/** Nobody confirmed the thaw of a session that has ended. */
export class ThawPendingError extends ThawUnconfirmedError {
  /** Settles, never rejects, when everything is known to be thawed. A failed attempt has no session to ask for it. */
  readonly thawed: Promise<FreezeReport>;

  constructor(why: string, report: FreezeReport, thawed: Promise<FreezeReport>, cause?: unknown) {
    super('E_THAW', why, { facts: { report }, ...defined({ cause }) });
    this.thawed = thawed;
  }
}

/**
 * The error for `error`, with the report among its facts. `unconfirmed`: why it is not known that everything is thawed,
 * until `thawed` settles; nothing matters beside it.
 */
export function sessionFailure(
  error: unknown,
  report: FreezeReport,
  { unconfirmed, thawed }: Pick<LocalSession, 'thawed'> & { readonly unconfirmed: string | undefined },
): Error {
  if (unconfirmed !== undefined) return new ThawPendingError(unconfirmed, report, thawed, error);
  if (error instanceof StateError || error instanceof UsageError) return error;
  if (error instanceof QuiesceError)
    return new QuiesceError(error.code, error.message, { facts: { ...error.facts, report }, cause: error.cause });
  // The message is all that there is to say: given as the cause, it would be told once more.
  return new QuiesceError('E_QUIESCE', describeError(error), { facts: { report } });
}

export function notFrozen(session: string, why: string, report: FreezeReport): QuiesceError {
  return new QuiesceError('E_EXPIRED', `session ${session} is not frozen any more: ${why}`, { facts: { report } });
}
