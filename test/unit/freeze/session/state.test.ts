// The table of states.
import { expect, test } from 'vitest';
import { coordinatorStates } from '../../../../src/consistency.js';
import { StateError } from '../../../../src/errors.js';
import { sessionTransitions, stepTo } from '../../../../src/freeze/session/state.js';

test('every way out goes through thawing, and no other step is allowed', () => {
  for (const from of coordinatorStates)
    for (const to of coordinatorStates) {
      if (sessionTransitions[from].includes(to)) expect(stepTo(to, from)).toBe(to);
      else expect(() => stepTo(to, from)).toThrow(StateError);
    }
  expect(coordinatorStates.filter((from) => sessionTransitions[from].includes('idle'))).toEqual(['thawing']);
  expect(coordinatorStates.filter((from) => sessionTransitions[from].includes('thawing'))).toEqual([
    'preparing',
    'holding',
    'freezing',
    'frozen',
  ]);
});
