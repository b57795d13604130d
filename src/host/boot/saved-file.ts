// Reads what a run holds beside its disks. A repository may be written to by others: only a plain file of the run's own
// folder that has the recorded sum is taken.
import { createHash } from 'node:crypto';
import { open, realpath, rename, truncate, writeFile } from 'node:fs/promises';
import { constants } from 'node:fs';
import { join } from 'node:path';
import { Deadline } from '../../deadline.js';
import { UsageError } from '../../errors.js';
import { runQemuImg } from '../images/qemu-img-task.js';
import { fileNode } from '../repository/chain-name.js';
import type { LinkReading } from '../repository/luks-link.js';
import type { SavedFile } from '../sets/manifest.js';

/** More than any firmware keeps. */
const LARGEST_BYTES = 256 * 1024 * 1024;
const DECRYPT_LIMIT_MS = 60_000;

/** `folder`: the run's. Throws a UsageError `E_BOOT`. */
export async function readSavedFile(folder: string, { name, size, sha256 }: SavedFile): Promise<Buffer> {
  const file = join(folder, name);
  const bytes = await readPlain(folder, name, size).catch((cause: unknown) => {
    throw new UsageError('E_BOOT', `cannot read ${file}`, { cause });
  });
  if (createHash('sha256').update(bytes).digest('hex') === sha256) return bytes;
  throw new UsageError('E_BOOT', `${file} is not what was saved with the run: see "backup verify"`);
}

/** Puts what a LUKS file holds, `size` bytes, in its place. Throws what `runQemuImg` does. */
export async function decrypt(file: string, size: number, { signal, key }: LinkReading): Promise<void> {
  const luks = `json:${JSON.stringify(fileNode({ file, encryption: { format: 'luks', cipher: '' } }))}`;
  const clear = `${file}.clear`;
  await writeFile(clear, '', { mode: 0o600 });
  const limits = { deadline: new Deadline(DECRYPT_LIMIT_MS), signal, key };
  await runQemuImg(['convert', '-O', 'raw', luks, clear], limits);
  await truncate(clear, size);
  await rename(clear, file);
}

async function readPlain(folder: string, name: string, size: number): Promise<Buffer> {
  if (size > LARGEST_BYTES) throw new Error(`it has ${size} bytes, expected at most ${LARGEST_BYTES}`);
  // Not joined: dots in the name must not go away.
  const file = `${await realpath(folder)}/${name}`;
  // No part of the name may be a link, and the file itself neither one that is made meanwhile nor a pipe.
  if ((await realpath(file)) !== file)
    throw new Error('it lies elsewhere: expected a plain file in the folder of the run');
  const handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const found = await handle.stat();
    if (!found.isFile() || found.size !== size) throw new Error(`expected a plain file of ${size} bytes`);
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(size), 0, size, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}
