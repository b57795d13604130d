// The states of a session, and the one table of the steps between them. Any failure or expiry goes to `thawing`, never
// straight to `idle` (../README.md, "The states").
import type { coordinatorStates } from '../../consistency.js';
import { StateError } from '../../errors.js';

export type SessionState = (typeof coordinatorStates)[number];

export const sessionTransitions: Readonly<Record<SessionState, readonly SessionState[]>> = {
  idle: ['preparing'],
  preparing: ['holding', 'thawing'],
  holding: ['freezing', 'thawing'],
  freezing: ['frozen', 'thawing'],
  frozen: ['thawing'],
  thawing: ['idle'],
};

/** The next state. Throws a StateError if there is no such step: a bug. */
export function stepTo(next: SessionState, from: SessionState): SessionState {
  if (sessionTransitions[from].includes(next)) return next;
  const required = Object.entries(sessionTransitions)
    .filter(([, targets]) => targets.includes(next))
    .map(([state]) => state);
  throw new StateError(`the step to ${next}`, from, required);
}
