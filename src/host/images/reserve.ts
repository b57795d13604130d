// Takes the space of a file before it is written, so that whoever writes it later never meets the end of the filesystem.
import { stat, truncate } from 'node:fs/promises';
import { CutError } from '../../errors.js';

const LIMIT_MS = 60_000;

/**
 * Takes `bytes` for the file, whose size stays. False where the filesystem cannot do that. Throws a CutError `E_NO_SPACE` if
 * there is too little.
 */
export async function reserveSpace(file: string, bytes: number): Promise<boolean> {
  if (bytes <= 0) return true;
  const { execa } = await import('execa');
  const result = await execa('fallocate', ['--keep-size', '--length', String(bytes), file], {
    timeout: LIMIT_MS,
    reject: false,
    stdin: 'ignore',
    env: { LC_ALL: 'C' },
  });
  if (!result.failed) return true;
  if (/No space left|Disk quota exceeded/.test(result.stderr)) {
    throw new CutError('E_NO_SPACE', `no space for ${file}: ${bytes} bytes are wanted`);
  }
  return false;
}

/** Gives back what of it was not written. */
export async function releaseSpace(file: string): Promise<void> {
  await truncate(file, (await stat(file)).size);
}
