// Collects what snapshot sets of every VM of the state directory need as it is, for images/use.ts to ask before a file
// is touched. A set of the same VM may be recorded under another name, and VMs may share folders and bases.
import { dirname } from 'node:path';
import { describeError } from '../../errors.js';
import type { Monitor } from '../../qmp/monitor.js';
import type { Claim, UseWitnesses } from '../images/use.js';
import { namePattern } from '../vm/names.js';
import type { Manifest, ManifestDisk } from './manifest.js';
import { ManifestStore } from './manifest-store.js';
import { stateFolders } from './vm-record.js';

interface EverySet {
  readonly manifests: readonly Manifest[];
  /** For people: the sets that cannot be read. */
  readonly unreadable: readonly string[];
}

/** Reads the sets of every VM. Throws a UsageError if the state directory cannot be listed. */
export async function everySet(stateDir: string): Promise<EverySet> {
  const manifests: Manifest[] = [];
  const unreadable: string[] = [];
  for (const vm of await stateFolders(stateDir)) {
    // `lost+found`, for one, is no VM's.
    if (!namePattern.test(vm)) continue;
    const store = new ManifestStore(stateDir, vm);
    const all = await store.readAll();
    manifests.push(...all.manifests);
    for (const { set, reason, empty } of all.unreadable) {
      if (!empty) unreadable.push(`${store.file(set)} cannot be read: ${reason}`);
    }
  }
  return { manifests, unreadable };
}

/** Claims on the layers that hold the sets' cuts, and on the sets' overlays. */
function claimsOf(manifests: readonly Manifest[]): Claim[] {
  return manifests.filter(({ state }) => state !== 'committed' && state !== 'failed').flatMap(claimsOfSet);
}

function claimsOfSet({ vm, set, disks }: Manifest): Claim[] {
  const name = `snapshot set ${set} of ${vm.name}`;
  return disks
    .filter(({ merged }) => !merged)
    .flatMap(({ base, below = [], dataFiles = [], overlay, pivoted }) => [
      // Merged, it holds the cut no more: only its overlay is still there.
      ...(pivoted === true ? [] : [base.file, ...below.map(({ file }) => file), ...dataFiles]).map((file) => ({
        file,
        needs: 'bytes' as const,
        why: `${name} lies on it`,
      })),
      { file: overlay.file, needs: 'file' as const, why: `it is the overlay of ${name}` },
    ]);
}

/**
 * Who may need a file of the set, besides the set itself. Never throws: what cannot be read is told of in `unknown`.
 * `saved`: what else claims files, the saved state of a domain for one.
 */
export async function witnessesFor(
  stateDir: string,
  own: Manifest | undefined,
  monitors: readonly Monitor[],
  saved: readonly Claim[] = [],
): Promise<UseWitnesses> {
  try {
    const { manifests, unreadable } = await everySet(stateDir);
    const folders = new Set(manifests.flatMap(filesNamed).map((file) => dirname(file)));
    const others = manifests.filter(({ id }) => id !== own?.id);
    const claims = [...saved, ...claimsOf(others)];
    const spent = manifests.flatMap(({ disks }) => disks.filter(isSpent).map(({ overlay }) => overlay.file));
    return { monitors, claims, folders: [...folders], spent, unknown: unreadable };
  } catch (error) {
    return { monitors, claims: saved, folders: [], spent: [], unknown: [describeError(error)] };
  }
}

function isSpent({ pivoted, merged }: ManifestDisk): boolean {
  return pivoted === true && !merged;
}

function filesNamed({ disks }: Manifest): string[] {
  return disks.flatMap(({ base, below = [], dataFiles = [], overlay }) => [
    base.file,
    overlay.file,
    ...below.map(({ file }) => file),
    ...dataFiles,
  ]);
}
