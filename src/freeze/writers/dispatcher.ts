// Finds out what a hook given as qemu-ga's -F runs. QEMU's own dispatcher of a folder is replaced by that folder, whose
// hooks then have limits, an order and a verdict of their own. Any other program is run as it is, under the path given;
// a folder that it dispatches to is left to it, so that nothing runs twice.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { realPath } from '../../linux/kernel-values.js';
import type { WriterFolder } from './folders.js';

/**
 * Lines of code of scripts/qemu-guest-agent/fsfreeze-hook, from QEMU 1.4 to 10.2 and as distributions ship it (Debian 13's
 * has lines of its own): SHA-256 without comments and indentation, cut to 12 digits. One line more, and it is somebody's own.
 */
const stockLines = new Set(
  (
    '6293c201d435 163a767bd51c 6879dc3cb642 ccaf2074b03a 327b72644d48 486d9affb60d d10b36aa74a5 4bc8c2cb2db0 ' +
    '4669152d45c9 c53d8d4c8068 444e79831d5a 6fd0ddfe12af 10a5db62715f 780356938941 773b7aaa3b4c a4c3ed04a95a ' +
    'c22995adc297 ae4263590c02 8838e212ea12 68722926ed7e 51dc878f8da5 e9755d701d8f 504439f8e16d 7d54d5d767f0 ' +
    '7dd530c4d36d 3d6daf2c1bd7 b4bdc8481097 e56fd927ca1b 07dc139a05ad a76e49d6243f cf28dd9b8213 9dd6e85481b0 ' +
    'cc8591b58ad6 628f1b3eff79 780dcc928e84 4e30a7cf63d1 08bb14c239f9 5f7087dd6f5b 20bd1f07202a ae3c6a6c78ab ' +
    '0e6098e75409 6165087073da 686023ea8585 6276b1994f14 cfa2c3e833e3 956c59c6d995 bc05c7d96a90 136f73c75d4d ' +
    'ff3002be9f21 f069a2f40397 89d80028de38'
  ).split(' '),
);
/**
 * Where the dispatcher logs to, and the endings it ignores: both were changed often, and do not change what it runs.
 */
const indifferentLine = /^(LOGFILE=[\w./-]+|(\*[~.\w-]* ?\|? ?)+[)\\]?)$/;

/** All folders, the hook's first. `hook`: as given. `folders`: those that count without it. */
export function foldersWithHook(hook: string | undefined, folders: readonly WriterFolder[]): readonly WriterFolder[] {
  if (hook === undefined) return folders;
  const path = resolve('/', hook);
  const dispatched = dispatchedFolder(hook);
  if (dispatched !== undefined) return [{ path: dispatched, style: 'qemu' }, ...folders.filter(isNot(dispatched))];
  const own: WriterFolder = { path: dirname(path), only: basename(path), style: 'qemu' };
  const left = foldersLeftTo(hook, folders);
  return [own, ...folders.filter((folder) => !left.includes(folder))];
}

/** Folders that are not run because the hook's text names them: to run what lies there is taken to be its affair. */
export function foldersLeftTo(hook: string, folders: readonly WriterFolder[]): readonly WriterFolder[] {
  const path = resolve('/', hook);
  const text = textOf(path);
  if (stockFolder(path, text) !== undefined) return [];
  const code = codeOf(text).join('\n');
  return folders.filter((folder) => dispatches(path, code, folder.path));
}

/**
 * The folder that runs in place of a hook that is QEMU's own dispatcher; undefined for any other program, and for none.
 */
export function dispatchedFolder(hook: string): string | undefined {
  const path = resolve('/', hook);
  return stockFolder(path, textOf(path));
}

function stockFolder(path: string, text: string): string | undefined {
  const lines = codeOf(text);
  const loops = lines.some((line) => line.startsWith('for file in "$FSFREEZE_D"/*'));
  if (!loops || !lines.every((line) => indifferentLine.test(line) || stockLines.has(digest(line)))) return undefined;
  return join(dirname(text.includes('realpath') ? (realPath(path) ?? path) : path), 'fsfreeze-hook.d');
}

/** Lines without indentation and comments: a path that a comment names (its own, often) is not run. */
const codeOf = (text: string): readonly string[] =>
  text
    .split('\n')
    .map((line) => line.trim().replace(/\s+/g, ' '))
    .filter((line) => line !== '' && !line.startsWith('#'));

/** The program runs what lies in that folder, or starts the dispatcher that does: told by what its code names. */
function dispatches(path: string, code: string, folder: string): boolean {
  if (code.includes(folder.replace(/\.d$/, ''))) return true;
  const beside = [path, realPath(path) ?? path].flatMap((one) => [`${one}.d`, join(dirname(one), 'fsfreeze-hook.d')]);
  return beside.includes(folder) && /fsfreeze-hook\.d|\$\{?0\}?"?\.d/.test(code);
}

function isNot(path: string): (folder: WriterFolder) => boolean {
  return (folder) => folder.path !== path;
}

function digest(line: string): string {
  return createHash('sha256').update(line).digest('hex').slice(0, 12);
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    // The checks before its start say what is wrong with it.
    return '';
  }
}
