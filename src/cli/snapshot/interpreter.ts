// Finds out whether the program that a script names in its first line is there: the kernel refuses to start it otherwise,
// and says that the script is not there.
import { accessSync, constants } from 'node:fs';
import { basename, join } from 'node:path';
import { SEARCH_PATH } from '../../agent/program.js';

/** Why a file with this text cannot be started; undefined if it can, or has no such line. Never throws. */
export function interpreterProblem(text: string): string | undefined {
  const [, line] = /^#![ \t]*([^\n]*)/.exec(text) ?? [];
  if (line === undefined) return undefined;
  if (line.endsWith('\r')) return 'its lines end as those of DOS: the program of the first one is not found';
  const [program = '', argument] = line.trim().split(/[ \t]+/);
  if (!isThere(program)) return `its first line names ${program || 'no program'}, which is not there`;
  if (basename(program) !== 'env' || argument === undefined || argument.startsWith('-')) return undefined;
  const found = SEARCH_PATH.split(':').some((folder) => isThere(join(folder, argument)));
  return found ? undefined : `its first line names ${argument}, which is not in ${SEARCH_PATH}`;
}

function isThere(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
