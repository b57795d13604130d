// The words for what is kept of a VM that is shut off (definition.ts).

/** The definition of a libvirt domain among the texts that belong to a VM. */
export const DEFINITION_TEXT = 'domain-inactive.xml';

export interface DefinedDisk {
  /** As it is called when the VM runs. */
  readonly target: string;
  /** Absent for an empty drive, and where it is no file or device. */
  readonly file?: string;
  readonly format: string;
  /** As the guest sees it; absent if it was given none. */
  readonly serial?: string;
  /** Why the guest does not write to it, for people: it is no disk that has to be kept. */
  readonly unwritten?: string;
  /** Why its file alone is not the disk, or not in clear text, for people. */
  readonly notInFile?: string;
}
