// The domain's definition when a set's overlays go with the domain shut off: its disks become what they were before the
// cut, as the set kept them.
import { parseLibvirtAddress } from '../vm/libvirt/address.js';
import { domainOf } from '../vm/identity.js';
import type { Manifest } from './manifest.js';
import type { ManifestStore } from './manifest-store.js';
import { readSaved } from './saved-files.js';

/**
 * `files` are the overlays that go, or are known to be gone. Changes nothing if the VM is no libvirt domain. Throws what changeDefinition does.
 */
export async function putBackDefinition(
  store: ManifestStore,
  manifest: Manifest,
  files: readonly string[],
): Promise<void> {
  const { vm } = manifest;
  if (parseLibvirtAddress(vm.qmp) === undefined) return;
  // What only a domain needs is loaded for one.
  const { changeDefinition } = await import('../vm/libvirt/definition.js');
  const { DEFINITION } = await import('../vm/libvirt/describe-domain.js');
  // One that is not there is not among them: it may be on a filesystem that is not mounted, and the newest of its disk.
  const disks = manifest.disks.filter(({ merged, overlay }) => !merged && files.includes(overlay.file));
  const changes = disks.map(({ base, overlay, encryption }) => ({
    from: overlay.file,
    to: base.file,
    format: base.format,
    isEncrypted: encryption !== undefined,
  }));
  await changeDefinition(domainOf(vm.qmp, store.identity), changes, await readSaved(store, manifest, DEFINITION));
}
