// Keeps what has to be known of a VM that was started from a run until its images are whole: DIR/start.json.
import { readFile, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import * as v from 'valibot';
import { isErrno, UsageError } from '../../errors.js';
import { syncPath, writeDurably } from '../images/durable-file.js';
import type { StartFolder } from './start-folder.js';

const recordSchema = v.strictObject({
  format: v.literal(1),
  run: v.string(),
  /** Folder of the repository. */
  repository: v.string(),
  /** The command line of QEMU, without the word by which it waits. */
  command: v.array(v.string()),
  disks: v.array(
    v.strictObject({
      /** Absolute. */
      file: v.string(),
      /** QEMU's name for it. */
      node: v.string(),
    }),
  ),
  /** Bytes per second, all disks together. */
  speed: v.optional(v.number()),
  /** When the guest was let run; without it, it never was. */
  begun: v.optional(v.string()),
});
export type StartRecord = v.InferOutput<typeof recordSchema>;
export type StartedDisk = StartRecord['disks'][number];

/** Durable when it returns. */
export async function writeRecord({ record }: Pick<StartFolder, 'record'>, content: StartRecord): Promise<void> {
  await writeDurably(record, `${JSON.stringify(content, undefined, 2)}\n`);
}

/** Undefined if there is none. Throws a UsageError `E_UNFINISHED` for one that cannot be read. */
export async function readRecord({ record }: StartFolder): Promise<StartRecord | undefined> {
  try {
    return v.parse(recordSchema, JSON.parse(await readFile(record, 'utf8')));
  } catch (cause) {
    if (isErrno(cause, 'ENOENT', 'ENOTDIR')) return undefined;
    throw new UsageError('E_UNFINISHED', `${record} is not as this version writes it`, { cause });
  }
}

/** Its images are whole. */
export async function removeRecord({ record }: StartFolder): Promise<void> {
  await rm(record, { force: true });
  await syncPath(dirname(record));
}
