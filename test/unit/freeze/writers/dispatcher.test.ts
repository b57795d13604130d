// A hook given as -F: QEMU's dispatcher is Debian's, as installed here; the others are made of it.
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { foldersLeftTo, foldersWithHook } from '../../../../src/freeze/writers/dispatcher.js';
import type { WriterFolder } from '../../../../src/freeze/writers/folders.js';

const STOCK = '/etc/qemu/fsfreeze-hook';

let dir: string;
let hook: string;
let beside: WriterFolder;
const own: WriterFolder = { path: '/etc/fsfreeze-bridge/fsfreeze-hook.d', style: 'bridge' };
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'fsb-dispatcher-'));
  hook = join(dir, 'fsfreeze-hook');
  beside = { path: `${hook}.d`, style: 'qemu' };
  mkdirSync(beside.path);
});
afterEach(() => {
  rmSync(dir, { recursive: true });
});

const asItIs = (): WriterFolder => ({ path: dir, only: 'fsfreeze-hook', style: 'qemu' });

test('without a hook the folders are what they are', () => {
  expect(foldersWithHook(undefined, [own, beside])).toEqual([own, beside]);
});

test.skipIf(!existsSync(STOCK))("QEMU's own dispatcher is replaced by its folder, once and first", () => {
  copyFileSync(STOCK, hook);
  expect(foldersWithHook(hook, [own, beside])).toEqual([beside, own]);
  expect(foldersWithHook(hook, [own])).toEqual([beside, own]);
  // Where it logs to, its comments and what it ignores are no change of what it runs.
  const text = readFileSync(STOCK, 'utf8');
  const changed = text.replace(/^LOGFILE=.*$/m, 'LOGFILE=/dev/null').replace('*.sample |', '*.sample | *.off |');
  expect(changed).not.toBe(text);
  writeFileSync(hook, `${changed}\n# the end\n`);
  expect(foldersWithHook(hook, [own])).toEqual([beside, own]);
  // The folder lies beside it, whatever its own name is.
  copyFileSync(STOCK, join(dir, 'renamed'));
  expect(foldersWithHook(join(dir, 'renamed'), [own])).toEqual([beside, own]);
});

test.skipIf(!existsSync(STOCK))('one with a command of its own is run as it is, and its folder by it alone', () => {
  writeFileSync(hook, readFileSync(STOCK, 'utf8').replace(/^exit 0$/m, '/opt/notify "$1"\nexit 0'));
  expect(foldersWithHook(hook, [own, beside])).toEqual([asItIs(), own]);
});

test('one whose comments alone name its path leaves the folder beside it to us', () => {
  writeFileSync(hook, `#!/bin/sh\n# ${hook}, managed by Ansible\n  # See ${beside.path}/README.\n/opt/quiesce "$1"\n`);
  expect(foldersWithHook(hook, [own, beside])).toEqual([asItIs(), own, beside]);
  expect(foldersLeftTo(hook, [own, beside])).toEqual([]);
});

test('any other program is the one writer of its folder, and takes no other folder away', () => {
  writeFileSync(hook, '#!/bin/sh\n. ./hook.conf\n');
  expect(foldersWithHook(hook, [own, beside])).toEqual([asItIs(), own, beside]);
});

test.each([
  ['names the folder', (folder: string) => `for f in ${folder}/*; do "$f" "$1"; done`],
  ['starts the dispatcher of it', (folder: string) => `exec ${folder.replace(/\.d$/, '')} "$@"`],
  ['looks beside itself', () => 'for f in "$0".d/*; do "$f" "$1"; done'],
])('a program that %s runs what lies there: nobody else does', (_what, body) => {
  writeFileSync(hook, `#!/bin/sh\n${body(beside.path)}\n`);
  expect(foldersWithHook(hook, [own, beside])).toEqual([asItIs(), own]);
  expect(foldersLeftTo(hook, [own, beside])).toEqual([beside]);
});

test('a link to a dispatcher is told by what lies beside its target, too', () => {
  mkdirSync(join(dir, 'other'));
  writeFileSync(hook, '#!/bin/sh\nfor f in "$(dirname "$(readlink -f "$0")")"/fsfreeze-hook.d/*; do "$f" "$1"; done\n');
  symlinkSync(hook, join(dir, 'other/link'));
  expect(foldersWithHook(join(dir, 'other/link'), [own, beside])).toEqual([
    { path: join(dir, 'other'), only: 'link', style: 'qemu' },
    own,
  ]);
});

test('one that is not there is looked for under its name', () => {
  expect(foldersWithHook(join(dir, 'none'), [own])).toEqual([{ path: dir, only: 'none', style: 'qemu' }, own]);
});
