// Refuses a kernel older than the oldest that agent and freezer are made for, which is that of RHEL 8. Node needs the
// same.
import { UsageError } from '../errors.js';

const oldest = [4, 18] as const;

/**
 * `release` as uname(2) gives it. Throws a UsageError if the kernel is older; a release that cannot be read is taken
 * for a new one.
 */
export function checkKernel(release: string): void {
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(release) ?? [];
  if (major === undefined || minor === undefined) return;
  const isOlder = Number(major) < oldest[0] || (Number(major) === oldest[0] && Number(minor) < oldest[1]);
  if (isOlder)
    throw new UsageError('E_KERNEL', `kernel: expected Linux ${oldest.join('.')} or newer, found ${release}`);
}
