// One image put in the place of another, in what a VM that is shut off will be started with.

export interface ImageChange {
  readonly from: string;
  readonly to: string;
  /** The format of `to`. */
  readonly format: string;
  readonly isEncrypted?: boolean;
}
