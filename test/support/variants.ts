// What a suite does in some of its ways in `npm test`, and in more where it is asked to: the kernels and recipes that
// user-mode guests run on, and what happens at each step.
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

/** All of them with FSB_THOROUGH=1; else every other one: which half, two tests of the same steps choose between them. */
export function steps<Step>(all: readonly Step[], half: 0 | 1): readonly Step[] {
  return process.env['FSB_THOROUGH'] === '1' ? all : all.filter((_, index) => index % 2 === half);
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
