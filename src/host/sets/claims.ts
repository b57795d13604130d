// What snapshot sets need as it is: asked for by images/use.ts before a file is touched.
import type { Claim } from '../images/use.js';
import type { Manifest } from './manifest.js';

/** The bases on which the sets' overlays lie. */
export function claimsOf(manifests: readonly Manifest[]): Claim[] {
  return manifests
    .filter(({ state }) => state !== 'committed' && state !== 'failed')
    .flatMap(({ vm, set, disks }) =>
      disks
        .filter(({ merged }) => !merged)
        .map(({ base }) => ({ file: base.file, why: `snapshot set ${set} of ${vm.name} lies on it` })),
    );
}
