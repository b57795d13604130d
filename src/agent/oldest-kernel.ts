// The oldest kernel that agent and freezer are made for: that of RHEL 8. Our runtime asks for no older one either.
import { UsageError } from '../errors.js';

const OLDEST = [4, 18] as const;

/** `release` as uname(2) gives it. Throws a UsageError if it is older; one that cannot be read is taken for a new one. */
export function checkKernel(release: string): void {
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(release) ?? [];
  if (major === undefined || minor === undefined) return;
  const isOlder = Number(major) < OLDEST[0] || (Number(major) === OLDEST[0] && Number(minor) < OLDEST[1]);
  if (isOlder)
    throw new UsageError('E_KERNEL', `kernel: expected Linux ${OLDEST.join('.')} or newer, found ${release}`);
}
