// The record of one backup run, its schema: which instant of which VM, in which files, what they are worth, and how they
// are restored without this program. It is published with its files, and never changes.
import * as v from 'valibot';
import { finite } from '../../consistency.js';
import { runPattern } from '../images/run-file.js';
import { pointDiskEntries, pointInTimeEntries } from '../sets/point-in-time.js';
import { savedFileSchema } from '../sets/manifest.js';
import { imageFormats } from '../vm/disk-choice.js';

// Older versions refuse a run with entries that they do not know, as one that is encrypted has.
export const RUN_FORMAT = 1;

const plainName = v.pipe(v.string(), v.regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]*$/));
const run = v.pipe(v.string(), v.regex(runPattern));

/** A file with its sum. The sum of a file is that of the sums of its extents, one after the other. */
const summedFileEntries = {
  /** The name in the run's folder. */
  name: plainName,
  size: finite,
  /** BLAKE2b-512, in hexadecimal. */
  blake2b: v.string(),
} as const;

/** The file is a LUKS file: its sums are of that. */
const encryptionEntries = { format: v.literal('luks'), cipher: v.string() } as const;

const diskFileSchema = v.strictObject({
  ...summedFileEntries,
  /** Its image lies in it, whose header names what lies below. Absent if the file is the image. */
  encryption: v.optional(v.strictObject(encryptionEntries)),
  extentBytes: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  /** The BLAKE2b-512 of each extent; the last one may be shorter. */
  extents: v.array(v.string()),
});
export type DiskFile = v.InferOutput<typeof diskFileSchema>;

const runDiskSchema = v.strictObject({
  ...pointDiskEntries,
  kind: v.picklist(['full', 'incremental']),
  /** For people: why it is a full one, or what it lies on. */
  why: v.string(),
  /** The image that the VM wrote to. */
  source: v.strictObject({
    file: v.string(),
    format: v.picklist(imageFormats),
    /** The images that it lay on, the nearest first. */
    below: v.optional(v.array(v.string())),
    /** The inode of each of them, its own first; empty for a device. */
    inodes: v.optional(v.array(v.string())),
  }),
  file: diskFileSchema,
  /** The file that its header names as its backing file: of an earlier run of the VM. */
  base: v.optional(v.strictObject({ run, name: plainName, blake2b: v.string() })),
  /** What the VM has written since is recorded under this name, for as long as the VM keeps it. */
  checkpoint: v.optional(v.string()),
  /** Bytes that its checkpoint said were changed; of a full one, the whole disk. */
  copiedBytes: finite,
  /** Dirty bitmaps of other programs on the disk, which were left alone. */
  otherBitmaps: v.array(v.string()),
  /** A command line, to be typed in the folder of the repository. */
  restore: v.string(),
});
export type RunDisk = v.InferOutput<typeof runDiskSchema>;

const runSavedFileSchema = v.strictObject({
  ...savedFileSchema.entries,
  /** `size`: of the file itself (bytes), which is filled up to whole sectors. Absent if it is not encrypted. */
  encryption: v.optional(v.strictObject({ ...encryptionEntries, size: finite })),
});

export const runManifestSchema = v.strictObject({
  format: v.literal(RUN_FORMAT),
  /** The id of the repository. */
  repository: v.string(),
  run,
  id: v.string(),
  /** Runs of a VM are counted: a clock may be set back. */
  number: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  createdAt: v.string(),
  /** When its disks were whole and on the disk; it was published right after. */
  completedAt: v.string(),
  ...pointInTimeEntries,
  disks: v.array(runDiskSchema),
  /** Files of the VM beside its disks, in the run's folder. */
  saved: v.array(runSavedFileSchema),
  transfer: v.strictObject({
    /** From the cut until every disk was copied (milliseconds). */
    copyMs: finite,
    /** Reading all again, for their sums. */
    hashMs: finite,
  }),
});
export type RunManifest = v.InferOutput<typeof runManifestSchema>;

/** Any of its disks can only be read with a key. */
export function isEncrypted({ disks }: Pick<RunManifest, 'disks'>): boolean {
  return disks.some(({ file }) => file.encryption !== undefined);
}
