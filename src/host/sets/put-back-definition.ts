// The domain's definition when a set's overlays go with the domain shut off: its disks become what they were before the
// cut, as the set kept them.
import { parseLibvirtAddress } from '../vm/libvirt/address.js';
import type { Manifest } from './manifest.js';
import type { ManifestStore } from './manifest-store.js';
import { readSaved } from './saved-files.js';

/** Changes nothing if the VM is no libvirt domain. Throws what changeDefinition does. */
export async function putBackDefinition(store: ManifestStore, manifest: Manifest): Promise<void> {
  const { vm, disks } = manifest;
  if (parseLibvirtAddress(vm.qmp) === undefined) return;
  // What only a domain needs is loaded for one.
  const { changeDefinition } = await import('../vm/libvirt/definition.js');
  const { DEFINITION } = await import('../vm/libvirt/describe-domain.js');
  const changes = disks.map(({ base, overlay, encryption }) => ({
    from: overlay.file,
    to: base.file,
    format: base.format,
    isEncrypted: encryption !== undefined,
  }));
  await changeDefinition(vm.qmp, changes, await readSaved(store, manifest, DEFINITION));
}
