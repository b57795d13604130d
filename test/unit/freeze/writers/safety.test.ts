// Every way in which somebody else than root could have a say in what is run.
import { afterEach, beforeEach, expect, test } from 'vitest';
import {
  chmodSync,
  lchownSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { tmpdir } from 'node:os';
import { fileIdentity, whyUnsafeNow, whyUnsafe } from '../../../../src/freeze/writers/safety.js';
import { requires } from '../../../support/requires.js';

const me = process.getuid?.() ?? 0;
const NOBODY = 65_534;
let dir: string;
let hook: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'fsb-safety-'));
  mkdirSync(join(dir, 'hooks'));
  hook = join(dir, 'hooks/h');
  writeFileSync(hook, '', { mode: 0o755 });
});
afterEach(() => {
  rmSync(dir, { recursive: true, force: true });
});
const why = (): string | undefined => whyUnsafe(hook, me);

/** `hooks/h` becomes a link to `target`; the file moves there. */
function linked(target: string, through = target): void {
  const place = join(dir, target);
  mkdirSync(join(place, '..'), { recursive: true });
  renameSync(hook, place);
  symlinkSync(join(dir, through), hook);
}

test('below /tmp, of our own: fine', () => {
  expect(why()).toBeUndefined();
  linked('elsewhere/deep/h');
  expect(why()).toBeUndefined();
});

test.each([0o775, 0o757, 0o777, 0o1777])('mode %o of the file, of its folder, of the folder of its target', (mode) => {
  const said = `is writable by others (mode ${mode.toString(8)})`;
  chmodSync(hook, mode);
  expect(why()).toBe(`${hook} ${said}: chmod go-w ${hook}`);
  chmodSync(hook, 0o755);
  chmodSync(join(dir, 'hooks'), mode);
  expect(why()).toBe(`${join(dir, 'hooks')} ${said}: chmod go-w ${join(dir, 'hooks')}`);
  chmodSync(join(dir, 'hooks'), 0o755);
  linked('elsewhere/h');
  chmodSync(join(dir, 'elsewhere'), mode);
  expect(why()).toBe(`${join(dir, 'elsewhere')} ${said}: chmod go-w ${join(dir, 'elsewhere')}`);
});

test('a folder above: sticky will do', () => {
  chmodSync(dir, 0o1777);
  expect(why()).toBeUndefined();
  chmodSync(dir, 0o777);
  expect(why()).toBe(`${dir} is writable by others (mode 777): chmod go-w ${dir}`);
});

test('a folder that only the way leads through', () => {
  mkdirSync(join(dir, 'between'));
  symlinkSync(join(dir, 'safe/h'), join(dir, 'between/h'));
  linked('safe/h', 'between/h');
  expect(why()).toBeUndefined();
  chmodSync(join(dir, 'between'), 0o777);
  expect(why()).toBe(`${join(dir, 'between')} is writable by others (mode 777): chmod go-w ${join(dir, 'between')}`);
});

test('links to folders, upwards, to nothing, to themselves, to what is no file', () => {
  symlinkSync('../hooks/.', join(dir, 'hooks/here'));
  expect(whyUnsafe(`${dir}/hooks/here/../hooks/here/h`, me)).toBeUndefined();
  const link = join(dir, 'hooks/l');
  symlinkSync('nowhere', link);
  expect(whyUnsafe(link, me)).toBe('a link that leads nowhere');
  rmSync(link);
  symlinkSync('l', link);
  expect(whyUnsafe(link, me)).toMatch(/more than 40 links/);
  rmSync(link);
  symlinkSync('../hooks', link);
  expect(whyUnsafe(link, me)).toBe('not a regular file');
  expect(whyUnsafe(join(dir, 'hooks/no'), me)).toBe('it is not there');
  expect(whyUnsafe(join(hook, 'x'), me)).toMatch(/ENOTDIR/);
});

requires('root')('of somebody else', () => {
  test.each(['the file', 'its folder', 'a folder above'])('%s', (what) => {
    const place = what === 'the file' ? hook : what === 'its folder' ? join(dir, 'hooks') : dir;
    chownSync(place, NOBODY, NOBODY);
    expect(why()).toBe(`${place} belongs to user ${NOBODY}, not to root: chown root ${place}`);
    // Unless it is the agent's.
    expect(whyUnsafe(hook, NOBODY)).toBeUndefined();
  });

  test('a link of somebody else in a sticky folder, where only he may turn it', () => {
    mkdirSync(join(dir, 'sticky'));
    chmodSync(join(dir, 'sticky'), 0o1777);
    symlinkSync(join(dir, 'safe/h'), join(dir, 'sticky/h'));
    linked('safe/h', 'sticky/h');
    expect(why()).toBeUndefined();
    lchownSync(join(dir, 'sticky/h'), NOBODY, NOBODY);
    const link = join(dir, 'sticky/h');
    expect(why()).toBe(`${link} belongs to user ${NOBODY}, not to root: chown -h root ${link}`);
  });
});

test('before it is started once more: the same file, or any safe one to let go', () => {
  const identity = fileIdentity(hook) ?? '';
  const writer = { path: hook, checked: { owner: me, identity } };
  expect([whyUnsafeNow(writer, false), whyUnsafeNow(writer, true)]).toEqual([undefined, undefined]);
  writeFileSync(join(dir, 'other'), '', { mode: 0o755 });
  renameSync(join(dir, 'other'), hook);
  expect(whyUnsafeNow(writer, false)).toBe('it was replaced or changed after the session was planned');
  expect(whyUnsafeNow(writer, true)).toBeUndefined();
  chmodSync(hook, 0o777);
  expect(whyUnsafeNow(writer, true)).toContain('is writable by others');
});
