// Where handlers look: the kernel's trees and the tools of the guest. Roots and tools are settable for tests.
import { readFileSync } from 'node:fs';
import { machineViewer, type LookAtMachine } from '../linux/machine-view.js';
import type { Compat } from '../qga/server.js';
import { errnoText } from './errno-text.js';
import { refuse } from '../qga/server.js';
import { runProgram, type RunProgram } from './program.js';

export interface Sources {
  readonly compat: Compat;
  readonly sysRoot: string;
  readonly procRoot: string;
  readonly udevRoot: string;
  readonly utmpPath: string;
  /** On tmpfs: what is needed for a moment. */
  readonly runtimeDir: string;
  readonly run: RunProgram;
  /** The one view of mounts and disks, which the freeze path has too. */
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

/** A file of the kernel's; answers as qemu-ga if it cannot be opened. */
export function readKernelFile(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    return refuse(`open("${path}"): ${errnoText(error)}`);
  }
}

/** Milliseconds a tool that only looks may take. */
export const LOOK_LIMIT_MS = 10_000;
