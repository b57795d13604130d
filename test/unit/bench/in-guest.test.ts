// How the bench in-guest reads what writers noted.
import { expect, test } from 'vitest';
import { pauseOf } from '../../bench/in-guest-volumes.js';

test('the pause is from the first writer asked to hold to the last one that has let go', () => {
  const notes = 'freeze 10.000000\nfreeze 10.020000\nthaw 10.250000\nthaw 10.300000\n';
  expect(pauseOf(notes, 2)).toBeCloseTo(300);
});

test('a writer that was not held, or not let go, makes it no sample', () => {
  const notes = 'freeze 10.000000\nfreeze 10.020000\nthaw 10.250000\n';
  expect(() => pauseOf(notes, 2)).toThrow('expected 2 writers held and let go, found 2 and 1');
});
