// Reads and changes what a VM that is shut off will be started with, as far as its hypervisor keeps that. A Hypervisor
// (hypervisor.ts) is there only while the VM runs. Plain QEMU keeps nothing; libvirt keeps the definition of the domain
// and its saved memory.
import type { Claim } from '../images/use.js';
import { DEFINITION_TEXT, type DefinedDisk } from './defined-vm.js';
import type { VmDescription } from './hypervisor.js';
import type { ImageChange } from './image-change.js';
import type { Place } from './place.js';

export interface Definition {
  /** The name of its text among those that `describe` gives; undefined if nothing is kept. */
  readonly textName: string | undefined;

  /**
   * Puts other images into the definition; a running VM is not touched. A disk that was on such an image in `before`, an
   * older definition, becomes what it was there. Disks on other images are left alone, and so is a VM that is not known
   * any more. Throws what Virsh.run does, and a BridgeError for an image of which too little is known.
   */
  redefine(changes: readonly ImageChange[], before?: string): Promise<void>;

  /** The disks that the VM will be started with; undefined if that is not kept. Throws what Virsh.run does. */
  disks(): Promise<readonly DefinedDisk[] | undefined>;

  /** The VM, shut off, beside its disks. Throws what Virsh.run does. */
  describe(): Promise<VmDescription>;

  /**
   * The images that the VM's saved memory needs as they are, the layers below its disks among them. Empty if nothing is
   * saved. Throws what Virsh.run does.
   */
  savedState(): Promise<Claim[]>;
}

const nothingKept: Definition = {
  textName: undefined,
  redefine: () => Promise.resolve(),
  disks: () => Promise.resolve(undefined),
  describe: () => Promise.resolve({ texts: [], folders: [] }),
  savedState: () => Promise.resolve([]),
};

/**
 * The definition of the VM whose monitor is, or was, at this place. Nothing is asked until one of its methods is
 * called.
 */
export function definitionAt(place: Place): Definition {
  if (place.kind === 'socket') return nothingKept;
  // Code that only a domain needs is loaded for one.
  return {
    textName: DEFINITION_TEXT,
    async redefine(changes, before) {
      const { changeDefinition } = await import('./libvirt/definition.js');
      await changeDefinition(place, changes, before);
    },
    async disks() {
      const { definedDisks } = await import('./libvirt/definition.js');
      return await definedDisks(place);
    },
    async describe() {
      const { describeDefinition } = await import('./libvirt/describe-domain.js');
      return await describeDefinition(place);
    },
    async savedState() {
      const { managedSaveOf } = await import('./libvirt/managed-save.js');
      return await managedSaveOf(place);
    },
  };
}
