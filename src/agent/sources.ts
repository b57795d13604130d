// Where handlers look: the kernel's trees and the tools of the guest. Roots and tools are settable for tests.
import { readFileSync } from 'node:fs';
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
}

export function defaultSources(compat: Compat, runtimeDir: string): Sources {
  return {
    compat,
    sysRoot: '/sys',
    procRoot: '/proc',
    udevRoot: '/run/udev',
    utmpPath: '/var/run/utmp',
    runtimeDir,
    run: runProgram,
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
export const lookLimitMs = 10_000;
