// The entries of a manifest that tell of one instant of a VM, whatever holds its bytes: which VM, which disks, what the
// guest proved, and when. A snapshot set records them with its overlays.
import * as v from 'valibot';
import { consistencyLevelSchema, finite, freezeReportSchema } from '../../consistency.js';

/** Raised when an entry changes its meaning; readers take what they know. */
export const POINT_VERSION = 1;

const createSteps = ['inspect', 'overlays', 'quiesce', 'cut', 'thaw', 'record', 'targets', 'transfer', 'hash'] as const;
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

export const pointDiskEntries = {
  /** Name of the drive in QEMU, or libvirt's target. */
  device: v.string(),
  /** The id of the guest's device, for people. */
  id: v.string(),
  qdev: v.optional(v.string()),
  serial: v.optional(v.string()),
  pciAddress: v.optional(v.string()),
  virtualSize: finite,
  /** How its images are encrypted, `luks` for instance; absent if they are not. */
  encryption: v.optional(v.string()),
  /** The level that was proved for this disk. */
  level: consistencyLevelSchema,
  evidence: v.array(v.string()),
} as const;

export const pointInTimeEntries = {
  /** Absent in sets of older versions. */
  pointVersion: v.optional(v.literal(POINT_VERSION)),
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
  /** The level that was asked for, once it is known what `auto` meant for this guest. */
  required: consistencyLevelSchema,
  /** The lowest of the disks' levels: reached and proved. */
  level: consistencyLevelSchema,
  evidence: v.array(v.string()),
  leftOut: v.array(v.strictObject({ what: v.string(), reason: v.string() })),
  timings: v.strictObject({
    /** Milliseconds since the tool began. */
    steps: v.array(v.strictObject({ step: v.picklist(createSteps), startMs: finite, endMs: finite })),
    marks: marksSchema,
    cutMs: v.optional(finite),
    pauseWindowMs: v.optional(finite),
    frozenWindowMs: v.optional(finite),
  }),
  /** Every command sent to the monitor until the disks were cut (and a set was made of them), with its CLOCK_MONOTONIC stamp in milliseconds. */
  monitorLog: v.array(v.strictObject({ command: v.string(), sentMs: finite })),
  /** The guest's own account, final. */
  guest: v.optional(freezeReportSchema),
  versions: v.strictObject({ tool: v.string(), node: v.string(), qemu: v.string(), agent: v.optional(v.string()) }),
} as const;

/** What is recorded of an instant. */
export type PointInTime = v.InferOutput<v.StrictObjectSchema<typeof pointInTimeEntries, undefined>>;
export type PointDisk = v.InferOutput<v.StrictObjectSchema<typeof pointDiskEntries, undefined>>;
