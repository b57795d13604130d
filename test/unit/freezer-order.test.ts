// The freezer's files stand in the order that its README gives: each calls only what stands below it, and no header
// includes one that includes it back. What the functions do is for the C tests, qga/freezer/test.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

const FOLDER = fileURLToPath(new URL('../../qga/freezer', import.meta.url));

/** By a file's name. The session has two headers: one for the server, one for the session's own files. */
const moduleOf = (name: string) => name.replace(/\.[ch]$/, '').replace(/^session-state$/, 'session');

interface Source {
  readonly name: string;
  readonly text: string;
}

function sources(): Source[] {
  return readdirSync(FOLDER)
    .filter((name) => /\.[ch]$/.test(name))
    .map((name) => ({ name, text: readFileSync(join(FOLDER, name), 'utf8') }));
}

/** From the top down. */
function orderIn(readme: string): string[] {
  const [, section] = /^## The files\n([^]*?)^# /m.exec(readme) ?? [];
  return [...(section ?? '').matchAll(/^- `([\w-]+)`:/gm)].map(([, name]) => name ?? '');
}

const included = ({ text }: Source) => [...text.matchAll(/^#include "(.*)"$/gm)].map(([, name]) => name ?? '');

/** Functions that other files may call: defined at the left margin, and not static. */
function definedBy({ text }: Source): string[] {
  const heads = /^(?!static\b)[a-z][^;{}()=]*?\b(\w+)\([^;{}]*\)\n\{/gm;
  return [...text.matchAll(heads)].map(([, name]) => name ?? '');
}

/** Without comments, strings and what is defined in the file itself: all names that it uses. */
function usedBy({ text }: Source): Set<string> {
  const code = text.replace(/\/\*[^]*?\*\/|"(?:[^"\\\n]|\\.)*"/g, ' ');
  const own = [...code.matchAll(/^[a-z][^;{}()=]*?\b(\w+)\([^;{}]*\)\n\{/gm)].map(([, name]) => name ?? '');
  // A member of a struct may be called as a function of another file is.
  const names = [...code.matchAll(/(?<!->|\.)\b[a-z_]\w*\b(?=\(|[,;)])/g)].map(([name]) => name);
  return new Set(names.filter((name) => !own.includes(name)));
}

/** What is wrong with these files, in words. */
function problemsOf(files: readonly Source[], order: readonly string[]): string[] {
  const placeOf = (name: string) => order.indexOf(moduleOf(name));
  const owner = new Map(files.flatMap((file) => definedBy(file).map((name) => [name, file.name] as const)));
  const unlisted = files.filter(({ name }) => placeOf(name) < 0).map(({ name }) => `${name} has no place in the order`);
  const upward = files.flatMap((file) => [
    ...included(file)
      .filter((name) => placeOf(name) < placeOf(file.name))
      .map((name) => `${file.name} includes ${name}, which stands above it`),
    ...[...usedBy(file)].flatMap((name) => {
      const home = file.name.endsWith('.c') ? owner.get(name) : undefined;
      return home && placeOf(home) < placeOf(file.name) ? [`${file.name} calls ${name} of ${home}`] : [];
    }),
  ]);
  return [...unlisted, ...upward, ...circlesOf(files)];
}

function circlesOf(files: readonly Source[]): string[] {
  const below = new Map(files.map((file) => [file.name, included(file)]));
  const reaches = (from: string, to: string, seen = new Set<string>()): boolean =>
    (below.get(from) ?? []).some((next) => {
      if (next === to) return true;
      if (seen.has(next)) return false;
      seen.add(next);
      return reaches(next, to, seen);
    });
  return [...below.keys()].filter((name) => reaches(name, name)).map((name) => `${name} includes itself, in the end`);
}

const order = orderIn(readFileSync(join(FOLDER, 'README.md'), 'utf8'));

test('the README names every file of the freezer once, and none that is not there', () => {
  expect(order.toSorted()).toEqual([...new Set(sources().map(({ name }) => moduleOf(name)))].toSorted());
});

test('every function that a header declares is found', () => {
  const defined = new Set(sources().flatMap(definedBy));
  const declared = sources()
    .filter(({ name }) => name.endsWith('.h'))
    .flatMap(({ text }) => [...text.replace(/\/\*[^]*?\*\//g, '').matchAll(/^[a-z_].*?\b(\w+)\([^()]*\);$/gm)])
    .map(([, name]) => name ?? '');
  expect(declared.length).toBeGreaterThan(50);
  expect(declared.filter((name) => !defined.has(name) && name !== 'hung_taker')).toEqual([]);
});

test('calls and includes go down', () => {
  expect(problemsOf(sources(), order)).toEqual([]);
});

describe('what would be wrong is seen', () => {
  const low = { name: 'low.c', text: '#include "low.h"\n\nint low_ask(int fd)\n{\n\treturn fd;\n}\n' };
  const high = { name: 'high.c', text: '#include "low.h"\n\nvoid high_run(void)\n{\n\tlow_ask(1);\n}\n' };

  test('nothing, where calls go down', () => {
    expect(problemsOf([low, high], ['high', 'low'])).toEqual([]);
  });

  test('a call upward, declared wherever', () => {
    const text = `${low.text}\nvoid high_run(void);\n\nvoid low_end(void)\n{\n\thigh_run();\n}\n`;
    expect(problemsOf([{ ...low, text }, high], ['high', 'low'])).toEqual(['low.c calls high_run of high.c']);
  });

  test('a function of a file above that is handed on, not called', () => {
    const text = `${low.text}\nvoid low_end(void)\n{\n\tlow_each(high_run);\n}\n`;
    expect(problemsOf([{ ...low, text }, high], ['high', 'low'])).toEqual(['low.c calls high_run of high.c']);
  });

  test('a circle of headers', () => {
    const headers = [
      { name: 'low.h', text: '#include "low-words.h"\n' },
      { name: 'low-words.h', text: '#include "low.h"\n' },
    ];
    const problems = problemsOf(headers, ['low', 'low-words']);
    expect(problems).toContain('low.h includes itself, in the end');
    expect(problems).toContain('low-words.h includes low.h, which stands above it');
  });

  test('a file that the order does not name', () => {
    expect(problemsOf([low, high], ['low'])).toEqual(['high.c has no place in the order']);
  });
});
