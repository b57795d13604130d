// Says what a request demands of the session (FreezeRequest.require), and ends an attempt that cannot give it: the
// errors of a level too low, of a failed writer and of a failed FIFREEZE. Pure. The level itself: verdict.ts.
import { levelAskedFor, satisfies, type ConsistencyLevel, type FreezeRequest } from '../../consistency.js';
import { QuiesceError } from '../../errors.js';
import type { Verdict } from './verdict.js';
import type { Writer } from '../writers/folders.js';

/** A writer that should run, and may not be run. */
export interface UnsafeWriter extends Pick<Writer, 'required' | 'shipped'> {
  readonly what: string;
  /** Names what mends it. */
  readonly reason: string;
}

type Require = FreezeRequest['require'];

/** What a plain freeze does when a hook of the administrator's fails: ends, or goes on and lowers the level. */
export const hookFailures = ['refuse', 'lower'] as const;
export type HookFailure = (typeof hookFailures)[number];

/**
 * Whether a writer that fails, or cannot be run safely, ends the attempt. A plain freeze names no level: there the
 * administrator's own writers decide, unless told otherwise, and those that we ship never do.
 */
export function vetoes(
  { required, shipped = false }: Pick<Writer, 'required' | 'shipped'>,
  require: Require,
  hookFailure: HookFailure,
): boolean {
  if (require === 'plain') return required && !shipped && hookFailure === 'refuse';
  return required && (require === 'auto' || require === 'application');
}

/** The level below which the attempt ends; undefined where the level does not matter. */
export function levelNeeded(require: Require, writerConcerned: boolean): ConsistencyLevel | undefined {
  return require === 'plain' ? undefined : levelAskedFor(require, writerConcerned);
}

/** Throws a QuiesceError that says what keeps the level down. */
export function checkLevel(verdict: Verdict, needed: ConsistencyLevel): void {
  if (satisfies(verdict.level, needed)) return;
  const why = verdict.evidence.at(-1) ?? 'no evidence';
  throw new QuiesceError('E_LEVEL', `level ${needed} required, at most ${verdict.level} can be had: ${why}`, {
    facts: { required: needed, level: verdict.level },
  });
}

/** Throws a QuiesceError if there are `failures`: of writers that veto, for people. */
export function checkWriters(require: Require, failures: readonly string[]): void {
  if (failures.length > 0)
    throw new QuiesceError('E_WRITER', `a required writer failed: ${failures.join('; ')}${wayOut(require)}`);
}

/**
 * Throws a QuiesceError for writers that cannot be run. Only a plain freeze ends by them; where a level is asked for
 * they lower it.
 */
export function checkUnsafe(require: Require, hookFailure: HookFailure, unsafe: readonly UnsafeWriter[]): void {
  const vetoing = unsafe.filter((writer) => require === 'plain' && vetoes(writer, require, hookFailure));
  if (vetoing.length === 0) return;
  const told = vetoing.map(({ what, reason }) => (reason.startsWith(`${what} `) ? reason : `${what}: ${reason}`));
  throw new QuiesceError('E_WRITER', `a hook cannot be run safely: ${told.join('; ')}${wayOut(require)}`);
}

function wayOut(require: Require): string {
  return require === 'plain' ? ' (hook-failure=lower in [bridge] freezes all the same)' : '';
}

/**
 * Throws a QuiesceError for the first of `errors`, if a plain freeze was asked for: those of opens and FIFREEZEs,
 * without EBUSY and EOPNOTSUPP, which guest-fsfreeze-freeze passes over.
 */
export function checkPlain(require: Require, errors: readonly string[]): void {
  const [error] = errors;
  if (require === 'plain' && error !== undefined) throw new QuiesceError('E_FREEZE', `failed to freeze ${error}`);
}
