// Numbers and names of the errors that FIFREEZE, FITHAW, open and syncfs answer with.
import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';

export const { EBUSY, EINVAL, ENOTTY, EOPNOTSUPP, ETIMEDOUT } = constants.errno;

/** `EIO (i/o error)`; the number if it has no name. */
export function errnoText(errno: number): string {
  const entry = getSystemErrorMap().get(-errno);
  return entry === undefined ? `error ${errno}` : `${entry[0]} (${entry[1]})`;
}
