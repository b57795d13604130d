// Sets up an ISA serial line as qemu-ga does: raw, 38400 baud, no echo. Node has no tcsetattr that leaves
// output alone (its raw mode keeps ONLCR), so coreutils' stty does it, once, at start.
import { existsSync } from 'node:fs';
import { execa } from 'execa';
import { UnreachableError } from '../errors.js';

const programs = ['/usr/bin/stty', '/bin/stty'] as const;
const LIMIT_MS = 5000;

/** Throws an UnreachableError if the line takes no settings, or there is no stty. */
export async function makeLineRaw(path: string): Promise<void> {
  const program = programs.find((candidate) => existsSync(candidate));
  if (program === undefined) {
    throw new UnreachableError(
      'E_PORT',
      `cannot set up ${path}: expected stty at ${programs.join(' or ')}, found none`,
    );
  }
  const { failed, stderr, shortMessage } = await execa(
    program,
    ['-F', path, '38400', 'raw', '-echo', '-hupcl', 'clocal'],
    {
      stdin: 'ignore',
      timeout: LIMIT_MS,
      reject: false,
    },
  );
  if (failed)
    throw new UnreachableError('E_PORT', `cannot set up ${path}: ${stderr === '' ? (shortMessage ?? '') : stderr}`);
}
