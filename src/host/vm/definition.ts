// Reads and changes what a VM that is shut off will be started with, as far as its hypervisor keeps that. A Hypervisor
// (hypervisor.ts) is there only while the VM runs. Plain QEMU keeps nothing; libvirt keeps the definition of the domain
// and its saved memory.
import type { Claim } from '../images/use.js';
import type { ImageChange } from './image-change.js';
import type { Place } from './place.js';

/** The definition of a libvirt domain among the texts that `describe` gives. */
export const DEFINITION_TEXT = 'domain-inactive.xml';

export interface Definition {
  /** The name of its text among those that `describe` gives; undefined if nothing is kept. */
  readonly textName: string | undefined;

  /**
   * Puts other images into the definition; a running VM is not touched. A disk that was on such an image in `before`, an
   * older definition, becomes what it was there. Disks on other images are left alone, and so is a VM that is not known
   * any more. Throws what Virsh.run does, and a BridgeError for an image of which too little is known.
   */
  redefine(changes: readonly ImageChange[], before?: string): Promise<void>;

  /**
   * The images that the VM's saved memory needs as they are, the layers below its disks among them. Empty if nothing is
   * saved. Throws what Virsh.run does.
   */
  savedState(): Promise<Claim[]>;
}

const nothingKept: Definition = {
  textName: undefined,
  redefine: () => Promise.resolve(),
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
    async savedState() {
      const { managedSaveOf } = await import('./libvirt/managed-save.js');
      return await managedSaveOf(place);
    },
  };
}
