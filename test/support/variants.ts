// The kernels and recipes that a suite of user-mode guests runs on: its usual ones, or those that `npm run test:kernels`
// asks for.
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
