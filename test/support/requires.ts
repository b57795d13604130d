// Skips a suite, with the reason, on a machine that lacks what it needs. With FSB_REQUIRED=all, as in CI, a skip is a
// failure. It is used in place of `describe`: requires('root', 'loop', 'mkfs.xfs')('the freezer', () => { ... }).
import { accessSync, constants, readFileSync } from 'node:fs';
import { describe } from 'vitest';
import { isProgramThere, packagesFor } from '../../src/testing/programs.js';

/** The programs that user-mode guests need, and those that they are built with. */
export const USER_MODE = packagesFor('image', 'kernel', 'user-mode').flatMap(({ programs }) => programs);

const accessible = (path: string, mode: number): boolean => {
  try {
    accessSync(path, mode);
    return true;
  } catch {
    return false;
  }
};

/** The kernel may be built without it, the administrator may have switched it off, a container may filter the calls. */
function hasIoUring(): boolean {
  const isBuiltIn = / __x64_sys_io_uring_setup$/m.test(readFileSync('/proc/kallsyms', 'utf8'));
  const disabled = '/proc/sys/kernel/io_uring_disabled';
  const isSwitchedOff = accessible(disabled, constants.R_OK) && readFileSync(disabled, 'utf8').trim() !== '0';
  return isBuiltIn && !isSwitchedOff && /^Seccomp:\t0$/m.test(readFileSync('/proc/self/status', 'utf8'));
}

/** A writable tree of cgroup v2. */
function hasGroupFreezer(): boolean {
  return /^\S+ \S+ cgroup2 rw\b/m.test(readFileSync('/proc/self/mounts', 'utf8'));
}

const isThere = (need: string): boolean => {
  switch (need) {
    case 'root':
      return process.geteuid?.() === 0;
    case 'loop':
      return accessible('/dev/loop-control', constants.R_OK | constants.W_OK);
    case 'fuse':
      return accessible('/dev/fuse', constants.R_OK | constants.W_OK);
    case 'cgroup2':
      return hasGroupFreezer();
    case 'io_uring':
      return hasIoUring();
    default:
      return isProgramThere(need);
  }
};

/** Those of `needs` this machine lacks: `root`, `loop` (loop devices), `fuse`, `cgroup2`, `io_uring`, else the name of an executable. */
const missing = (...needs: readonly string[]): string[] => needs.filter((need) => !isThere(need));

/**
 * A `describe` that skips, and says why in its name, if something is missing.
 * @throws Error if something is missing and FSB_REQUIRED is `all`.
 */
export const requires = (...needs: readonly string[]): ((name: string, body: () => void) => void) => {
  const lacking = missing(...needs);
  if (lacking.length === 0) return (name, body) => void describe(name, body);
  const reason = `needs ${lacking.join(', ')}`;
  if (process.env['FSB_REQUIRED'] === 'all') throw new Error(`FSB_REQUIRED=all, but this machine lacks: ${reason}`);
  return (name, body) => void describe.skip(`${name} [skipped: ${reason}]`, body);
};
