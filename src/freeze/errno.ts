// Names of the errors that FIFREEZE, FITHAW, open and syncfs answer with.
import { getSystemErrorMap } from 'node:util';

/** `EIO (i/o error)`; the number if it has no name. */
export function errnoText(errno: number): string {
  const entry = getSystemErrorMap().get(-errno);
  return entry === undefined ? `error ${errno}` : `${entry[0]} (${entry[1]})`;
}
