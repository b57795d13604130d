import { expect, test } from 'vitest';
import { draw } from '../../../torture/draw.js';
import { cellOf } from '../../../vm/faults/matrix.js';
import { STEPS } from '../../../vm/faults/timeline.js';

test('a run is what its seed and number say', () => {
  expect(draw(7, 3)).toEqual(draw(7, 3));
  expect(new Set(Array.from({ length: 20 }, (_, index) => JSON.stringify(draw(7, index)))).size).toBeGreaterThan(15);
});

test('steps and instants are drawn uniformly, cells that cannot exist never', () => {
  const draws = Array.from({ length: 6000 }, (_, index) => draw(1, index));
  for (const step of STEPS) {
    const { length } = draws.filter((each) => each.step === step);
    expect(length).toBeGreaterThan(850);
    expect(length).toBeLessThan(1150);
  }
  for (const { fault, step } of draws) expect(cellOf(fault, step)).toHaveProperty('told');
  const mean = draws.reduce((sum, { within }) => sum + within, 0) / draws.length;
  expect(mean).toBeGreaterThan(0.48);
  expect(mean).toBeLessThan(0.52);
  expect(Math.max(...draws.map(({ within }) => within))).toBeLessThan(1);
});
