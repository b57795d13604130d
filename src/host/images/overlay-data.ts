// What an overlay holds that no other layer has, and what its header says, without opening the layers below it: those
// may be locked by a VM, or gone.
import { open, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { imageFile } from '../../qmp/image-name.js';
import { isErrno } from '../errno.js';
import { mapOfLayer } from './image-file.js';

/**
 * True if any cluster of the qcow2 layer is allocated: what was written to it, or discarded in it. False for a file that
 * is not there, or has no byte yet. While a VM has it open, clusters written last may be missed.
 */
export async function holdsData(file: string): Promise<boolean> {
  try {
    if ((await stat(file)).size === 0) return false;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return false;
    throw error;
  }
  return (await mapOfLayer(file)).some(({ present, data }) => present ?? data);
}

/** Those of the files that hold data. */
export async function withData(files: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for (const file of files) if (await holdsData(file)) found.push(file);
  return found;
}

const QCOW2_MAGIC = 0x514649fb;
/** QEMU's own bound for the name of a backing file. */
const MAX_NAME_BYTES = 1023;

/** The backing file a qcow2 header names, made absolute; undefined if the file is no qcow2, or names none. */
export async function backingOf(file: string): Promise<string | undefined> {
  const handle = await open(file, 'r');
  try {
    const header = Buffer.alloc(20);
    if ((await handle.read(header, 0, header.length, 0)).bytesRead < header.length) return undefined;
    if (header.readUInt32BE(0) !== QCOW2_MAGIC) return undefined;
    const offset = Number(header.readBigUInt64BE(8));
    const length = header.readUInt32BE(16);
    if (offset === 0 || length === 0 || length > MAX_NAME_BYTES) return undefined;
    const name = Buffer.alloc(length);
    const { bytesRead } = await handle.read(name, 0, length, offset);
    // A name with options (`json:...`) lies on a file, too.
    return resolve(dirname(file), imageFile(name.toString('utf8', 0, bytesRead)));
  } finally {
    await handle.close();
  }
}
