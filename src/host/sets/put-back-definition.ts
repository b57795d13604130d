// Puts the definition of a VM back when a set's overlays go with the VM shut off: its disks become what they were
// before the cut, as the set kept them.
import { definitionAt } from '../vm/definition.js';
import { placeNow } from '../vm/identity.js';
import { monitorOf, type Manifest } from './manifest.js';
import type { ManifestStore } from './manifest-store.js';
import { readSaved } from './saved-files.js';

/** `files` are the overlays that go, or are known to be gone. Throws what Definition.redefine does. */
export async function putBackDefinition(
  store: ManifestStore,
  manifest: Manifest,
  files: readonly string[],
): Promise<void> {
  const definition = definitionAt(placeNow(monitorOf(manifest), store.identity));
  if (definition.textName === undefined) return;
  // An overlay that is not there is not among them: its filesystem may only be not mounted, and it the newest of its
  // disk.
  const disks = manifest.disks.filter(({ merged, overlay }) => !merged && files.includes(overlay.file));
  const changes = disks.map(({ base, overlay, encryption }) => ({
    from: overlay.file,
    to: base.file,
    format: base.format,
    isEncrypted: encryption !== undefined,
  }));
  await definition.redefine(changes, await readSaved(store, manifest, definition.textName));
}
