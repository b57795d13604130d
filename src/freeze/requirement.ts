// What a request demands of the session, and the errors that end an attempt which cannot give it
// (FreezeRequest.require). Pure.
import { satisfies, type ConsistencyLevel, type FreezeRequest } from '../consistency.js';
import { QuiesceError } from '../errors.js';
import type { Verdict } from './verdict.js';

type Require = FreezeRequest['require'];

/** A required writer that fails ends the attempt. */
export function writersMustHold(require: Require): boolean {
  return require === 'auto' || require === 'application' || require === 'plain';
}

/** The level below which the attempt ends; undefined where the level does not matter. */
export function levelNeeded(require: Require, writerConcerned: boolean): ConsistencyLevel | undefined {
  if (require === 'plain') return undefined;
  if (require !== 'auto') return require;
  return writerConcerned ? 'application' : 'filesystem';
}

/** Throws a QuiesceError that says what keeps the level down. */
export function checkLevel(verdict: Verdict, needed: ConsistencyLevel): void {
  if (satisfies(verdict.level, needed)) return;
  const why = verdict.evidence.at(-1) ?? 'no evidence';
  throw new QuiesceError('E_LEVEL', `level ${needed} required, at most ${verdict.level} can be had: ${why}`, {
    facts: { required: needed, level: verdict.level },
  });
}

export function checkWriters(require: Require, failures: readonly string[]): void {
  if (writersMustHold(require) && failures.length > 0)
    throw new QuiesceError('E_WRITER', `a required writer failed: ${failures.join('; ')}`);
}

/** `errors`: of opens and FIFREEZEs, without EBUSY and EOPNOTSUPP, which guest-fsfreeze-freeze passes over. */
export function checkPlain(require: Require, errors: readonly string[]): void {
  const [error] = errors;
  if (require === 'plain' && error !== undefined) throw new QuiesceError('E_FREEZE', `failed to freeze ${error}`);
}
