// Comments and documentation lead somewhere: every file that one names is there.
import { readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const FOLDERS = ['src', 'qga', 'test', 'vm-images', 'fsfreeze-hook.d'];

const files = [
  ...readdirSync(ROOT).filter((name) => name.endsWith('.md')),
  ...FOLDERS.flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && !entry.parentPath.includes('node_modules'))
      .map(({ parentPath, name }) => join(parentPath, name).slice(ROOT.length)),
  ),
];
const known = new Set(files);

/** Of other projects' trees, and one that the reader is told to make. */
const ELSEWHERE = new Set([
  ...['fs/filesystems.c', 'fs/jbd2/journal.c', 'net/core/net-procfs.c', 'linux/magic.h'],
  ...['arch/um/drivers/line.c', 'arch/um/drivers/mconsole.h'],
  ...['block.c', 'tools/vsh.c', 'qga/commands-linux.c', 'qapi/qmp-dispatch.c', 'qapi/qobject-input-visitor.c'],
  ...['qemu/qemu_agent.c', 'sysexits.h', 'hook.test.mjs'],
]);

function commentsOf(file: string, text: string): string {
  if (file.endsWith('.md')) return text;
  const pattern = /\/\*[^]*?\*\/|(?:^|[^:'"`])\/\/.*$/gm;
  return [...text.matchAll(pattern)].map(([comment]) => comment).join('\n');
}

/** Beside it, in a room of its floor, or from the root, src/ or one of the other folders on. */
function isThere(named: string, from: string): boolean {
  const bases = [dirname(from), dirname(dirname(from)), '.', ...FOLDERS];
  if (bases.some((base) => known.has(normalize(join(base, named))))) return true;
  return (
    named === basename(named) &&
    files.some((file) => basename(file) === named && dirname(file).startsWith(dirname(from)))
  );
}

test.each(files.filter((file) => ['.ts', '.c', '.h', '.mjs', '.md'].includes(extname(file))))('%s', (file) => {
  const comments = commentsOf(file, readFileSync(join(ROOT, file), 'utf8'));
  const named = [...comments.matchAll(/(?<![\w/.*~-])(?:\.{0,2}\/)?[\w./-]*[\w-]\.(?:ts|mjs|c|h|md)\b(?![\w*(])/g)]
    .map(([name]) => name)
    .filter((name) => !ELSEWHERE.has(name));
  expect(named.filter((name) => !isThere(name, file))).toEqual([]);
});
