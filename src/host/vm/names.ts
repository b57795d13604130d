// The rule for names of VMs and of snapshot sets: one path component that needs no quoting anywhere.
import { UsageError } from '../../errors.js';

export const namePattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;

/** Gives the name back. Throws a UsageError unless it is 1-100 letters, digits, dots, dashes and underscores. */
export function checkName(what: string, name: string): string {
  if (namePattern.test(name)) return name;
  throw new UsageError(
    'E_NAME',
    `${what}: expected 1 to 100 of A-Z a-z 0-9 . _ - (the first a letter or digit), found ${JSON.stringify(name)}`,
  );
}

/** `/run/vm1/qmp.sock` -> `run-vm1-qmp.sock`: a name for what has only a path; two paths may get the same one. */
export function nameFromPath(path: string, maxLength = 100): string {
  return path
    .replace(/^\/+/, '')
    .replace(/[^A-Za-z0-9._]+/g, '-')
    .slice(-maxLength)
    .replace(/^[^A-Za-z0-9]+/, '');
}
