// Programs of the benches that run in a guest, which may be older than this machine.
import path from 'node:path';
import { execa } from 'execa';
import type { Scratch } from '../support/scratch.js';

const FLAGS = ['-O2', '-Wall', '-Wextra', '-Werror', '-static'];

/** Compiles the program of this name, whose source lies here, into `folder`. Gives its path. */
export async function guestProgram(name: string, folder: Pick<Scratch, 'path'>): Promise<string> {
  const program = folder.path(name);
  await execa('cc', [...FLAGS, '-o', program, path.join(import.meta.dirname, `${name}.c`)]);
  return program;
}
