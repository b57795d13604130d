// Comments and documentation lead somewhere: the files that they name are there, and so is what Markdown links to. Not
// checked: a function or a test that a comment names; no pattern tells such a name from an ordinary word.
import { readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const folders = ['src', 'qga', 'test', 'vm-images', 'fsfreeze-hook.d'];
const places = ['.', ...folders];

const filesOf: Readonly<Record<string, readonly string[]>> = {
  '.': readdirSync(ROOT, { withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name }) => name),
  ...Object.fromEntries(
    folders.map((folder) => [
      folder,
      readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile() && !entry.parentPath.includes('node_modules'))
        .map(({ parentPath, name }) => join(parentPath, name).slice(ROOT.length)),
    ]),
  ),
};
const files = Object.values(filesOf).flat();
const known = new Set(files);
const knownFolders = new Set(files.flatMap(foldersAbove));

/** Of other projects' trees, and one that the reader is told to make. */
const elsewhere = new Set([
  ...['fs/filesystems.c', 'fs/jbd2/journal.c', 'net/core/net-procfs.c', 'linux/magic.h'],
  ...['arch/um/drivers/line.c', 'arch/um/drivers/mconsole.h'],
  ...['block.c', 'tools/vsh.c', 'qga/commands-linux.c', 'qapi/qmp-dispatch.c', 'qapi/qobject-input-visitor.c'],
  ...['qemu/qemu_agent.c', 'sysexits.h', 'hook.test.mjs'],
]);

function foldersAbove(file: string): readonly string[] {
  const above = dirname(file);
  return above === '.' ? ['.'] : [above, ...foldersAbove(above)];
}

const read = (file: string): string => readFileSync(join(ROOT, file), 'utf8');

/** All of a Markdown file; of another one, its comments. */
function commentsOf(file: string): string {
  const text = read(file);
  if (file.endsWith('.md')) return text;
  const pattern = /\/\*[^]*?\*\/|(?:^|[^:'"`])\/\/.*$/gm;
  return [...text.matchAll(pattern)].map(([comment]) => comment).join('\n');
}

const withoutCode = (markdown: string): string =>
  markdown.replaceAll(/^ *```[^]*?^ *```$/gm, '').replaceAll(/`[^`\n]*`/g, '');

/** Beside it, in a room of its floor, or from the root, src/ or one of the other folders on. */
function isThere(named: string, from: string): boolean {
  return (
    whereIs(named, from) !== undefined ||
    (named === basename(named) &&
      files.some((file) => basename(file) === named && dirname(file).startsWith(dirname(from))))
  );
}

function whereIs(named: string, from: string): string | undefined {
  const bases = [dirname(from), dirname(dirname(from)), ...places];
  return bases.map((base) => normalize(join(base, named))).find((path) => known.has(path));
}

/** As GitHub makes anchors of headings. Two of one name do not occur within a file. */
function anchorsOf(file: string): ReadonlySet<string> {
  return new Set(headingsOf(file).map((heading) => slug(heading)));
}

const slug = (heading: string): string =>
  heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\p{M}_ -]/gu, '')
    .replaceAll(' ', '-');

function headingsOf(file: string): readonly string[] {
  const text = read(file).replaceAll(/^ *```[^]*?^ *```$/gm, '');
  return [...text.matchAll(/^#+ +(.+?) *$/gm)].map(([, heading = '']) => heading);
}

/** What is missing, by the file that names it. */
function missing(
  among: readonly string[],
  named: (file: string) => readonly string[],
): Record<string, readonly string[]> {
  return Object.fromEntries(among.map((file) => [file, named(file)] as const).filter(([, names]) => names.length > 0));
}

const withComments = (place: string): readonly string[] =>
  (filesOf[place] ?? []).filter((file) => ['.ts', '.js', '.c', '.h', '.mjs', '.md'].includes(extname(file)));

test.each(places)('%s: every file that a comment or a README names is there', (place) => {
  const pattern = /(?<![\w/.*~-])(?:\.{0,2}\/)?[\w./-]*[\w-]\.(?:ts|mjs|c|h|md)\b(?![\w*(])/g;
  const lost = missing(withComments(place), (file) =>
    [...commentsOf(file).matchAll(pattern)]
      .map(([name]) => name)
      .filter((name) => !elsewhere.has(name) && !isThere(name, file)),
  );
  expect(lost).toEqual({});
});

test.each(places)('%s: every section that is named with its file, in quotes, is there', (place) => {
  const lost = missing(withComments(place), (file) => {
    const text = commentsOf(file).replaceAll(/\n *(?:\/\/|\*) ?/g, ' ');
    return [...text.matchAll(/([\w./-]+\.md)\)?, "([^"]+)"/g)]
      .map(([, named = '', section = '']) => ({ named, section, path: whereIs(named, file) }))
      .filter(({ path, section }) => path !== undefined && !headingsOf(path).includes(section))
      .map(({ named, section }) => `${named}, "${section}"`);
  });
  expect(lost).toEqual({});
});

test.each(places)('%s: every link of a Markdown file leads to a file, a folder or a heading that is there', (place) => {
  const markdown = (filesOf[place] ?? []).filter((file) => file.endsWith('.md'));
  const lost = missing(markdown, (file) =>
    [...withoutCode(read(file)).matchAll(/\]\(([^)\s]+)\)/g)]
      .map(([, link = '']) => link)
      .filter((link) => !/^[a-z]+:/.test(link))
      .filter((link) => {
        const [path = '', anchor] = link.split('#');
        const target = path === '' ? file : normalize(join(dirname(file), path)).replace(/\/$/, '');
        if (!known.has(target) && !knownFolders.has(target)) return true;
        return anchor !== undefined && !(target.endsWith('.md') && anchorsOf(target).has(anchor));
      }),
  );
  expect(lost).toEqual({});
});
