// What is told of the rooms of src/ is what lint holds: the table in CONTRIBUTING.md is test/house.js, and the picture in
// the README has every room, and none that is not there. A stale table is printed by the test as it should be.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { libraries, rooms } from '../house.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const read = (file: string): string => readFileSync(join(ROOT, file), 'utf8');

/** The first block of code below a heading. */
function blockBelow(file: string, heading: string): string {
  const [, below = ''] = read(file).split(`\n${heading}\n`);
  const [, block = ''] = /^```\n([^]*?)^```$/m.exec(below) ?? [];
  return block;
}

function table(entries: Readonly<Record<string, readonly string[]>>): string {
  const width = Math.max(...Object.keys(entries).map((name) => name.length));
  return Object.entries(entries)
    .map(([name, others]) => `${name.padEnd(width)}  ${others.length === 0 ? '-' : others.join(' ')}\n`)
    .join('');
}

test('CONTRIBUTING.md has the rooms as lint holds them', () => {
  expect(blockBelow('CONTRIBUTING.md', '## The walls')).toBe(table(rooms));
});

test('CONTRIBUTING.md has the libraries as lint holds them', () => {
  expect(blockBelow('CONTRIBUTING.md', '### Libraries')).toBe(table(libraries));
});

test('every room and every place of a library is there', () => {
  const names = new Set([...Object.entries(rooms), ...Object.entries(libraries)].flat(2));
  const isThere = (name: string): boolean =>
    name in libraries || ['', '.ts'].some((end) => existsSync(join(ROOT, 'src', `${name}${end}`)));
  expect([...names].filter((name) => !isThere(name))).toEqual([]);
});

/** The folders in the README's picture: those at the head of a line, and those named in the text after it. */
function pictured(line: string): readonly string[] {
  const [head = '', text = ''] = line.split(/ {2,}/);
  const [first = '', ...others] = head.split(' ');
  // `src/wire/ transport/`: the second is a folder of src/, too.
  const floor = first.startsWith('src/') ? 'src/' : '';
  const folders = [first, ...others.map((name) => `${floor}${name}`)];
  const within = text.match(/[\w-]+\/(?= |$)/g) ?? [];
  return [...folders, ...within.flatMap((name) => folders.map((folder) => `${folder}${name}`))];
}

const picture = blockBelow('README.md', '## The house').trimEnd().split('\n').flatMap(pictured);

test('every folder in the picture of the README is there', () => {
  expect(picture.filter((folder) => !existsSync(join(ROOT, folder)))).toEqual([]);
});

test('every room is in the picture of the README', () => {
  const folders = Object.keys(rooms).map((room) => `src/${room}/`);
  expect(folders.filter((folder) => !picture.includes(folder))).toEqual([]);
});

/** Of each file of src/ those that it imports, types included: lint passes over circles of types alone. */
const imports = new Map(
  readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .map((file) => {
      const found = read(`src/${file}`).matchAll(/(?:from|import\()\s*'(\.[^']+)\.js'/g);
      return [file, [...found].map(([, named = '']) => `${join(dirname(file), named)}.ts`)] as const;
    }),
);

/** A way from the file back to itself; undefined if there is none. */
function circleOf(file: string): readonly string[] | undefined {
  const seen = new Set<string>();
  const ways = [[file]];
  for (let way = ways.pop(); way !== undefined; way = ways.pop()) {
    for (const next of imports.get(way.at(-1) ?? '') ?? []) {
      if (next === file) return [...way, next];
      if (!seen.has(next)) ways.push([...way, next]);
      seen.add(next);
    }
  }
  return undefined;
}

test('no file leads back to itself by what it imports, types included', () => {
  expect([...imports.keys()].flatMap((file) => circleOf(file) ?? [])).toEqual([]);
});
