// The options with which the snapshot of a filesystem is mounted beside its origin. Pure.

/** Always: nothing is written to it, and it is data. What else, the place decides (tree.ts). */
const READ_ONLY = ['ro', 'nodev'];

export interface MountOptions {
  readonly options: readonly string[];
  /** Tried where those are refused. */
  readonly otherwise?: readonly string[];
}

/**
 * XFS refuses the id of a filesystem that is mounted already, and a log that is not empty where nothing may be written.
 * After a freeze all that counts is on the disk, so that the log need not be read; should it be refused all the same,
 * it is recovered into the snapshot, as ext4's is.
 */
export function mountOptions(type: string): MountOptions {
  if (type !== 'xfs') return { options: READ_ONLY };
  const otherwise = [...READ_ONLY, 'nouuid'];
  return { options: [...otherwise, 'norecovery'], otherwise };
}
