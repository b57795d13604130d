// Looks at a file of a run that is encrypted: from outside, and with its key by qemu-img.
import { open } from 'node:fs/promises';
import * as v from 'valibot';
import { Deadline } from '../../deadline.js';
import { BridgeError, UsageError } from '../../errors.js';
import { LUKS_MAGIC } from '../images/luks-file.js';
import type { LuksKey } from '../images/luks-key.js';
import { runQemuImg } from '../images/qemu-img-task.js';
import { chainName, type ChainFile } from './chain-name.js';

/** It stretches the key, and reads a header. */
const INFO_LIMIT_MS = 60_000;

/** Why it is no LUKS file, as the end of a sentence that names it; undefined if it is one. */
export async function checkLuks(file: string): Promise<string | undefined> {
  const handle = await open(file, 'r');
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(LUKS_MAGIC.length), 0, LUKS_MAGIC.length, 0);
    return buffer.subarray(0, bytesRead).equals(LUKS_MAGIC) ? undefined : 'it is no LUKS file';
  } finally {
    await handle.close();
  }
}

const infoSchema = v.object({
  'backing-filename': v.optional(v.string()),
  'format-specific': v.object({ data: v.object({ 'data-file': v.optional(v.string()) }) }),
});

export interface LinkReading {
  readonly signal: AbortSignal;
  /** Without it, what is encrypted is not looked into. */
  readonly key: LuksKey | undefined;
}

/**
 * What the header of its image names. `what`: the file, for people. Throws a UsageError `E_KEY` if the key does not open it,
 * and what `runQemuImg` does.
 */
export async function referencesInLuks(link: ChainFile, what: string, { signal, key }: LinkReading) {
  const limits = { deadline: new Deadline(INFO_LIMIT_MS), signal, key };
  try {
    const { stdout } = await runQemuImg(['info', '--output=json', chainName([link])], limits);
    const info = v.parse(infoSchema, JSON.parse(stdout));
    const dataFile = info['format-specific'].data['data-file'];
    return { backingName: info['backing-filename'], dataFiles: dataFile === undefined ? [] : [dataFile] };
  } catch (error) {
    if (!(error instanceof BridgeError) || error.code !== 'E_KEY') throw error;
    throw new UsageError('E_KEY', `${what}: ${error.message}`, {
      cause: error,
    });
  }
}
