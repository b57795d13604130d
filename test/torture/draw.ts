// What a random run is, from the seed and its number alone: fault, step, and where in the step.
import { FAULTS, type FaultName } from '../vm/faults/faults.js';
import { cellOf } from '../vm/faults/matrix.js';
import { STEPS, type Step } from '../vm/faults/timeline.js';

export interface Draw {
  readonly fault: FaultName;
  readonly step: Step;
  /** 0 to 1: how far into the step. */
  readonly within: number;
}

/** mulberry32: a generator whose whole state is 32 bits. */
export function generator(state: number): () => number {
  let a = state >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The step uniformly, then one of the faults that can be there, then an instant of it. */
export function draw(seed: number, index: number): Draw {
  const next = generator(Math.imul(seed, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b));
  next();
  const of = <T>(list: readonly T[]): T => {
    const item = list[Math.floor(next() * list.length)];
    if (item === undefined) throw new Error('nothing to draw from');
    return item;
  };
  const step = of(STEPS);
  const fault = of(FAULTS.filter((each) => 'told' in cellOf(each, step)));
  return { step, fault, within: next() };
}
