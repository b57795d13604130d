// The domain's definition when a set's overlays go with the domain shut off: its disks become what they were before the
// cut, as the set kept them.
import { parseLibvirtAddress } from '../vm/libvirt/address.js';
import { exists } from '../images/durable-file.js';
import type { Manifest, ManifestDisk } from './manifest.js';
import type { ManifestStore } from './manifest-store.js';
import { readSaved } from './saved-files.js';

/**
 * `files` are the overlays that go. Changes nothing if the VM is no libvirt domain. Throws what changeDefinition does.
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
  const disks: ManifestDisk[] = [];
  for (const disk of manifest.disks) {
    const isOurs = files.includes(disk.overlay.file) || !(await exists(disk.overlay.file));
    if (!disk.merged && isOurs) disks.push(disk);
  }
  const changes = disks.map(({ base, overlay, encryption }) => ({
    from: overlay.file,
    to: base.file,
    format: base.format,
    isEncrypted: encryption !== undefined,
  }));
  await changeDefinition(vm.qmp, changes, await readSaved(store, manifest, DEFINITION));
}
