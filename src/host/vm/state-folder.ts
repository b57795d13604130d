// State of a VM that lies beside its disks: the firmware's variables, a TPM.

/** Where more of a VM's state is kept: a folder, or one file. */
export interface StateFolder {
  /** Fit for a folder's name. */
  readonly name: string;
  /** For people. */
  readonly what: string;
  readonly path: string;
  /** The path by which this process can open it. */
  readonly seenAt: string;
}
