// A folder that is made beside its place, and has its name once everything in it is whole.
import { randomBytes } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { UsageError } from '../../errors.js';
import { exists } from '../images/durable-file.js';

/** Where it is made; no two callers get the same. */
export function draftOf(target: string): string {
  return join(dirname(target), `.draft-${basename(target)}.${process.pid}.${randomBytes(4).toString('hex')}`);
}

/** Throws a UsageError if it is there already, or cannot be made. */
export async function checkNewFolder(target: string): Promise<void> {
  if (await exists(target)) {
    const message = `${target} is already there: name a folder that is not, ${join(target, 'NAME')} for instance`;
    throw new UsageError('E_NAME_TAKEN', message);
  }
  const parent = dirname(target);
  const found = await stat(parent).catch((cause: unknown) => {
    throw new UsageError('E_TARGET', `cannot use ${parent}`, { cause });
  });
  if (!found.isDirectory()) throw new UsageError('E_TARGET', `${parent} is no folder`);
}
