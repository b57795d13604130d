// The record of one snapshot set: what was cut, into which files, what it is worth and why. Its schema and its states;
// where it lies is manifest-store.ts's business. It is written before the cut (state `cutting`), so that a tool killed
// after its transaction leaves a set that the next call knows of.
import * as v from 'valibot';
import { consistencyLevelSchema, finite, freezeReportSchema } from '../../consistency.js';

/**
 * creating    overlays are being made; no disk was cut
 * cutting     the transaction may have been sent: ask the VM which it is
 * cut         the VM writes to the overlays, the bases hold the state of the cut
 * committing  overlays are being merged back: the state of the cut is lost for disks that are `merged`, or soon will be
 * reverting   overlays are being emptied, some already are: only another revert leads out of it
 * committed   all merged back; the set holds nothing any more
 * deleting    its overlays are being removed, some already are: only another delete leads out of it
 * failed      nothing was cut, but something of it could not be removed
 */
const setStates = ['creating', 'cutting', 'cut', 'committing', 'committed', 'reverting', 'deleting', 'failed'] as const;

/** What a file is, however its name is spelled, and how it was at a moment. */
export const fileStateSchema = v.strictObject({
  /** As stat(2) has them, in decimal: they may exceed what a number holds. */
  device: v.string(),
  inode: v.string(),
  /** Bytes; 0 for a block device. */
  size: finite,
  mtimeMs: finite,
});
export type FileState = v.InferOutput<typeof fileStateSchema>;

const layerSchema = v.strictObject({
  /** As it was at the cut; unknown of an overlay that libvirt names. */
  node: v.optional(v.string()),
  file: v.string(),
  format: v.string(),
  /** Right after the cut. Absent in sets of older versions, and if it could not be asked. */
  asCut: v.optional(fileStateSchema),
});

const diskSchema = v.strictObject({
  device: v.string(),
  /** The id of the guest's device, for people. */
  id: v.string(),
  qdev: v.optional(v.string()),
  serial: v.optional(v.string()),
  pciAddress: v.optional(v.string()),
  virtualSize: finite,
  /** Holds the state of the cut. */
  base: layerSchema,
  /** Takes the writes after it. */
  overlay: layerSchema,
  /** The layers below the base, nearest first, which hold the state of the cut with it. Absent in older sets. */
  below: v.optional(v.array(layerSchema)),
  /** External data files of the base and of the layers below it. Absent if there are none, and in older sets. */
  dataFiles: v.optional(v.array(v.string())),
  /** How base and overlay are encrypted, `luks` for instance; absent if they are not. */
  encryption: v.optional(v.string()),
  /** What was proved for this disk. */
  level: consistencyLevelSchema,
  evidence: v.array(v.string()),
  /** QEMU was told to let the VM write to the base again: from here on until `pivoted`, which of the two is newer. */
  pivoting: v.optional(v.boolean()),
  /** The VM writes to the base again, which holds all of the overlay; its file may still be there. */
  pivoted: v.optional(v.boolean()),
  /**
   * `prune` merges the layer below the base, or below the overlay, into the next: headers are written meanwhile, so that
   * the base's time says nothing of the cut, which it holds all the same. Gone with a new `asCut` when that is over.
   */
  rebasing: v.optional(v.literal(true)),
  /** Its overlay is merged back and gone. */
  merged: v.boolean(),
});
export type ManifestDisk = v.InferOutput<typeof diskSchema>;

const createSteps = ['inspect', 'overlays', 'quiesce', 'cut', 'thaw', 'record'] as const;
export type CreateStep = (typeof createSteps)[number];

/** CLOCK_MONOTONIC of the host, in milliseconds: comparable between processes of one boot. */
const marksSchema = v.strictObject({
  freezeRequestedMs: v.optional(finite),
  freezeAnsweredMs: v.optional(finite),
  cutSentMs: v.optional(finite),
  cutAnsweredMs: v.optional(finite),
  thawRequestedMs: v.optional(finite),
  thawAnsweredMs: v.optional(finite),
});
export type Marks = v.InferOutput<typeof marksSchema>;

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
  vm: v.strictObject({
    name: v.string(),
    qmp: v.string(),
    qga: v.optional(v.string()),
    /** As QEMU calls it. */
    qemuName: v.optional(v.string()),
    uuid: v.optional(v.string()),
    /** As it was when the set was begun: `running`, `paused`, ... */
    status: v.string(),
  }),
  asked: v.picklist(['application', 'filesystem', 'crash', 'auto']),
  /** What was asked, once it is known what `auto` meant for this guest. */
  required: consistencyLevelSchema,
  /** The lowest of the disks' levels: reached and proved. */
  level: consistencyLevelSchema,
  evidence: v.array(v.string()),
  disks: v.array(diskSchema),
  leftOut: v.array(v.strictObject({ what: v.string(), reason: v.string() })),
  timings: v.strictObject({
    /** Milliseconds since the tool began. */
    steps: v.array(v.strictObject({ step: v.picklist(createSteps), startMs: finite, endMs: finite })),
    marks: marksSchema,
    cutMs: v.optional(finite),
    pauseWindowMs: v.optional(finite),
    frozenWindowMs: v.optional(finite),
  }),
  /** Every command sent to the monitor, with its CLOCK_MONOTONIC stamp in milliseconds. */
  monitorLog: v.array(v.strictObject({ command: v.string(), sentMs: finite })),
  /** The guest's own account, final. */
  guest: v.optional(freezeReportSchema),
  versions: v.strictObject({ tool: v.string(), node: v.string(), qemu: v.string(), agent: v.optional(v.string()) }),
  /** What went wrong, for people. */
  error: v.optional(v.string()),
});
export type Manifest = v.InferOutput<typeof manifestSchema>;
