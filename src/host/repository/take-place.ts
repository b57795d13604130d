// Writes a file of the repository where none is yet, and says what the filesystem needs for that.
import type { link } from 'node:fs/promises';
import { isErrno, UsageError } from '../../errors.js';
import { writeIfAbsent } from '../images/durable-file.js';

/** As writeIfAbsent. Throws a UsageError `E_REPOSITORY` where there are no hard links. */
export async function takePlace(file: string, text: string, linkTo?: typeof link): Promise<boolean> {
  try {
    return await writeIfAbsent(file, text, linkTo);
  } catch (cause) {
    if (!isErrno(cause, 'EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS')) throw cause;
    const message = `expected a filesystem with hard links, found one that refuses them (${(cause as NodeJS.ErrnoException).code ?? ''})`;
    throw new UsageError('E_REPOSITORY', message, { cause });
  }
}
