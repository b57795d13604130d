// The level that was asked for, and whether the cut may go on without it.
import { levelAskedFor, satisfies, type ConsistencyLevel, type FreezeReport } from '../../consistency.js';
import { QuiesceError } from '../../errors.js';

/** `auto`: application if the guest has a writer concerned, else filesystem. */
export const askedLevels = ['application', 'filesystem', 'crash', 'auto'] as const;
export type AskedLevel = (typeof askedLevels)[number];

export interface Requirement {
  readonly asked: AskedLevel;
  /** Go on below it, and say so. */
  readonly allowLower: boolean;
}

/** True if a cut that nobody held is good enough to be taken. */
export function crashWillDo({ asked, allowLower }: Requirement): boolean {
  return allowLower || asked === 'crash';
}

/** The level that was asked for, now that the guest told of its writers; without a report, the least it can be. */
export function requiredLevel(asked: AskedLevel, report: FreezeReport | undefined): ConsistencyLevel {
  const concerned = report?.writers.some(({ verdict }) => verdict !== 'not-applicable') ?? false;
  // A writer that may not be run speaks for an application all the same: the guest itself counts it (bridge-freeze,
  // auto).
  const unsafe = report?.unsafeWriters !== undefined && report.unsafeWriters.length > 0;
  return levelAskedFor(asked, concerned || unsafe);
}

/** Throws a QuiesceError if `reached` is below what was asked for and no lower one is allowed. */
export function checkReached(
  requirement: Requirement,
  reached: ConsistencyLevel,
  report: FreezeReport | undefined,
  why: string,
): void {
  const required = requiredLevel(requirement.asked, report);
  if (requirement.allowLower || satisfies(reached, required)) return;
  const message = `level ${required} was asked for, ${reached} at most can be had: ${why}; nothing was cut`;
  throw new QuiesceError('E_BELOW_REQUIRED', message, { facts: { required, reached, report } });
}
