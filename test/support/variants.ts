// What a suite does in some of its ways in `npm test`, and in more where it is asked to: the kernels and recipes that
// user-mode guests run on, and what happens at each step.
import { test } from 'vitest';
import { KERNEL_VERSIONS, type KernelVersion } from '../../src/testing/index.js';

const RECIPES = ['debian-12', 'debian-13'] as const;
type RecipeName = (typeof RECIPES)[number];

/** Those of FSB_KERNELS (`6.1,6.12,7.2`), else the usual ones. */
export function kernels(...usual: readonly KernelVersion[]): readonly KernelVersion[] {
  return chosen('FSB_KERNELS', KERNEL_VERSIONS, usual);
}

/** Those of FSB_RECIPES (`debian-12,debian-13`), else the usual ones. */
export function recipes(...usual: readonly RecipeName[]): readonly RecipeName[] {
  return chosen('FSB_RECIPES', RECIPES, usual);
}

export const isThorough = process.env['FSB_THOROUGH'] === '1';

/** All of them with FSB_THOROUGH=1; else one in `count`: which, by `part`, where tests of the same steps share them. */
export function oneIn<Step>(count: number, all: readonly Step[], part = 0): readonly Step[] {
  return isThorough ? all : all.filter((_, index) => index % count === part);
}

/**
 * A test with FSB_THOROUGH=1, else none, also none that is skipped: for what a test that is always run shows on another
 * kind of guest, by another step or for another peer, and for ways that are seldom gone.
 */
export function rarely(name: string, body: () => Promise<void>): void {
  if (isThorough) test(name, body);
}

function chosen<Name extends string>(
  variable: string,
  known: readonly Name[],
  usual: readonly Name[],
): readonly Name[] {
  const wanted = process.env[variable];
  if (wanted === undefined || wanted === '') return usual;
  return wanted.split(',').map((name) => {
    const found = known.find((each) => each === name);
    if (found === undefined) throw new Error(`${variable}: expected some of ${known.join(',')}, found ${name}`);
    return found;
  });
}
