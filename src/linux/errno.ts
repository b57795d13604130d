// Names of the errors that FIFREEZE, FITHAW, open and syncfs answer with.
import { getSystemErrorMap } from 'node:util';

export const EBUSY = 16;
export const EINVAL = 22;
export const ENOTTY = 25;
export const EOPNOTSUPP = 95;
export const ETIMEDOUT = 110;

/** `EIO (i/o error)`; the number if it has no name. */
export function errnoText(errno: number): string {
  const entry = getSystemErrorMap().get(-errno);
  return entry === undefined ? `error ${errno}` : `${entry[0]} (${entry[1]})`;
}
