// The record of one snapshot set, its schema and its states: what was cut, into which files, what it is worth and why.
// Where it lies is manifest-store.ts. It is written before the cut (state `cutting`), so that a tool killed after its
// transaction leaves a set that the next call knows of.
import * as v from 'valibot';
import { completeOutcomes, completionSchema, finite } from '../../consistency.js';
import { parsePlace, type Place } from '../vm/place.js';
import { pointDiskEntries, pointInTimeEntries } from './point-in-time.js';

/**
 * creating    overlays are being made; no disk was cut
 * cutting     the transaction may have been sent: ask the VM which it is
 * cut         the VM writes to the overlays, the bases hold the state of the cut, but for disks that are `merged`
 * committing  overlays are being merged back: the state of the cut is lost for disks that are `merged`, or soon will be
 * reverting   overlays are being emptied, some already are: only another revert leads out of it
 * committed   all merged back; the set holds nothing any more
 * deleting    its overlays are being removed, some already are: only another delete leads out of it
 * failed      nothing was cut, but something of it could not be removed
 */
const setStates = ['creating', 'cutting', 'cut', 'committing', 'committed', 'reverting', 'deleting', 'failed'] as const;

/** Tells what a file is, however its name is spelled, and how it was at a moment. */
const fileStateSchema = v.strictObject({
  /** As stat(2) has them, in decimal: they may exceed what a number holds. */
  device: v.string(),
  inode: v.string(),
  /** Bytes; 0 for a block device. */
  size: finite,
  mtimeMs: finite,
  /** The kernel's count of the writes to a block device. */
  writes: v.optional(v.strictObject({ boot: v.string(), disk: v.string(), sectors: v.string() })),
});

const layerSchema = v.strictObject({
  /** The node's name at the cut; unknown of an overlay that libvirt names. */
  node: v.optional(v.string()),
  file: v.string(),
  format: v.string(),
  /**
   * QEMU's own name of it (`json:{...}`), where its path alone would give other bytes: it is part of a file, it is
   * encrypted, or it was opened over another backing file than its header's. Absent in sets of older versions.
   */
  name: v.optional(v.string()),
  /** How it was right after the cut. Absent in sets of older versions, and if it could not be asked. */
  asCut: v.optional(fileStateSchema),
});

export type ManifestLayer = v.InferOutput<typeof layerSchema>;

const diskSchema = v.strictObject({
  ...pointDiskEntries,
  /** Holds the state of the cut. */
  base: layerSchema,
  /** Takes the writes after it. */
  overlay: layerSchema,
  /** The layers below the base, nearest first, which hold the state of the cut with it. Absent in older sets. */
  below: v.optional(v.array(layerSchema)),
  /** External data files of the base and of the layers below it. Absent if there are none, and in older sets. */
  dataFiles: v.optional(v.array(v.string())),
  /** How these were right after the cut, by their names. */
  dataFilesAsCut: v.optional(v.record(v.string(), fileStateSchema)),
  /** The overlay's folder, as stat(2) has it: where a filesystem is not mounted another folder has its name. */
  overlayFolder: v.optional(v.strictObject({ device: v.string(), inode: v.string() })),
  /**
   * Why the base holds the cut no longer, once that was seen: what was written to it may leave no trace to be seen
   * again.
   */
  lost: v.optional(v.string()),
  /** `asked`: a commit is to merge the overlay. `begun`: the base may hold a part of it. */
  merge: v.optional(v.picklist(['asked', 'begun'])),
  /** QEMU was told to let the VM write to the base again: from here on until `pivoted`, which of the two is newer. */
  pivoting: v.optional(v.boolean()),
  /** The VM writes to the base again, which holds all of the overlay; its file may still be there. */
  pivoted: v.optional(v.boolean()),
  /** When that was: nothing writes to the overlay afterwards. */
  pivotedAt: v.optional(v.string()),
  /**
   * `prune` merges the layer below the base, or below the overlay, into the next: headers are written meanwhile, so that
   * the base's time says nothing of the cut, which it holds all the same. Gone with a new `asCut` when that is over.
   */
  rebasing: v.optional(v.literal(true)),
  /** True once the overlay is merged back and gone. */
  merged: v.boolean(),
});
export type ManifestDisk = v.InferOutput<typeof diskSchema>;

export const savedFileSchema = v.strictObject({
  /** The file's path in the set's folder, and nowhere else: a record may be somebody else's. */
  name: v.pipe(
    v.string(),
    v.check((path) => !path.includes('\0') && path.split('/').every((part) => !['', '.', '..'].includes(part))),
  ),
  /** For people. */
  what: v.string(),
  /** The file it is a copy of; absent for what the hypervisor told. */
  from: v.optional(v.string()),
  size: finite,
  sha256: v.string(),
  /** A saved file is not part of the cut, as disks are: the VM may have written to it between the two. */
  copied: v.picklist(['before the cut', 'after the cut']),
  copiedAt: v.string(),
});
export type SavedFile = v.InferOutput<typeof savedFileSchema>;

export const manifestSchema = v.strictObject({
  format: v.literal(1),
  set: v.string(),
  /** Different for every set, also of the same name. */
  id: v.string(),
  state: v.picklist(setStates),
  /** With `committing`: newer sets lie on it, and it is `prune` that merges it; only another prune leads out of it. */
  pruning: v.optional(v.literal(true)),
  createdAt: v.string(),
  changedAt: v.string(),
  revertedAt: v.optional(v.string()),
  ...pointInTimeEntries,
  /**
   * What the guest's writers were told once the set was recorded, and what came of it. Absent if nobody was: the guest
   * was not held, or its agent has no such command; and in older sets.
   */
  completion: v.optional(
    v.strictObject({
      outcome: v.picklist(completeOutcomes),
      writers: completionSchema.entries.writers,
      /** Why it is not known that they were told. */
      error: v.optional(v.string()),
    }),
  ),
  disks: v.array(diskSchema),
  /** Files of the VM beside its disks, kept in the set's folder. Absent if there are none, and in older sets. */
  saved: v.optional(v.array(savedFileSchema)),
  /** For people: what went wrong. */
  error: v.optional(v.string()),
});
export type Manifest = v.InferOutput<typeof manifestSchema>;

/** The monitor through which the set was made. */
export function monitorOf({ vm }: Manifest): Place {
  return parsePlace(vm.qmp);
}

/** For people: the files of the set's overlays. */
export function overlayFiles({ disks }: Manifest): string {
  return disks.map(({ overlay }) => overlay.file).join(', ');
}
