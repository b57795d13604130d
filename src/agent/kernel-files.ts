// Gives handlers the kernel's trees and the tools of the guest to look at. Roots and tools are settable for tests.
import { readFileSync } from 'node:fs';
import { machineViewer, type LookAtMachine } from '../linux/machine-view.js';
import { refuse, type Compat } from '../qga/server.js';
import { errnoText } from './errno-text.js';
import { runProgram, type RunProgram } from './program.js';

export interface Sources {
  readonly compat: Compat;
  readonly sysRoot: string;
  readonly procRoot: string;
  readonly udevRoot: string;
  readonly utmpPath: string;
  /** A folder on tmpfs, for files that are needed for a moment. */
  readonly runtimeDir: string;
  readonly run: RunProgram;
  /** The one view of mounts and disks, shared with the freeze path. */
  readonly view: LookAtMachine;
}

export function defaultSources(compat: Compat, runtimeDir: string): Sources {
  const roots = { sysRoot: '/sys', procRoot: '/proc', udevRoot: '/run/udev' };
  return {
    compat,
    ...roots,
    utmpPath: '/var/run/utmp',
    runtimeDir,
    run: runProgram,
    view: machineViewer({ ...roots, mountinfoPath: '/proc/self/mountinfo' }),
  };
}

/** The text of a file of the kernel's. Throws a RemoteError with qemu-ga's text if it cannot be opened. */
export function readKernelFile(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    return refuse(`open("${path}"): ${errnoText(error)}`);
  }
}

/** Milliseconds a tool that only looks may take. */
export const LOOK_LIMIT_MS = 10_000;
