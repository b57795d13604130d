// Whose the files of a backup are, and what is told where a filesystem does not let one say. An effective user without
// rights stands for one: what it makes is its own, and chown(2) is refused.
import { chmodSync, chownSync, mkdirSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { CutError, QuiesceError } from '../../../../src/errors.js';
import { likeImage, withOwners } from '../../../../src/host/backup/like-image.js';
import { requires } from '../../../support/requires.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

const NOBODY = 65_534;
const OTHERS = 12_345;

requires('root')('a file that QEMU is to write to', () => {
  let folder: Scratch;
  const groups = process.getgroups?.() ?? [];
  beforeEach(() => {
    folder = scratch();
    chmodSync(folder.dir, 0o755);
    mkdirSync(folder.path('repo'));
    chownSync(folder.path('repo'), NOBODY, NOBODY);
  });
  afterEach(() => {
    process.seteuid?.(0);
    process.setegid?.(0);
    process.setgroups?.(groups);
    folder[Symbol.dispose]();
  });

  const image = (uid: number, gid: number, mode: number): string => {
    const file = folder.path('image');
    writeFileSync(file, '');
    chownSync(file, uid, gid);
    chmodSync(file, mode);
    return file;
  };
  const squashed = (...groups: readonly number[]): void => {
    process.setgroups?.(groups);
    process.setegid?.(NOBODY);
    process.seteuid?.(NOBODY);
  };
  const made = async (of: string) => {
    const file = folder.path('repo/data0.qcow2');
    await using handle = await open(file, 'wx', 0o600);
    const told = await likeImage(handle, file, of);
    const { uid, gid, mode } = await handle.stat();
    return { told, uid, gid, mode: mode & 0o777 };
  };

  test.each([
    ['600', 0o600],
    ['660', 0o660],
    ['644', 0o640],
    ['666', 0o660],
  ])('has owner, group and the rights of the group from an image of mode %s', async (mode, expected) => {
    const of = image(1234, OTHERS, Number.parseInt(mode, 8));
    expect(await made(of)).toEqual({ told: undefined, uid: 1234, gid: OTHERS, mode: expected });
  });

  test('stays whose it is where chown is refused, closed to its group, and that is told', async () => {
    const of = image(0, OTHERS, 0o660);
    squashed();
    const { told, ...found } = await made(of);
    expect(found).toEqual({ uid: NOBODY, gid: NOBODY, mode: 0o600 });
    expect(told).toContain(`expected owner and group 0:${OTHERS}, as ${of} has them, found ${NOBODY}:${NOBODY}`);
    expect(told).toContain('chown was refused (EPERM)');
  });

  test('is given to the group alone by an owner who is in it', async () => {
    const of = image(1234, OTHERS, 0o660);
    squashed(OTHERS);
    expect(await made(of)).toMatchObject({ uid: NOBODY, gid: OTHERS, mode: 0o660 });
  });
});

test('who owns what is told where that may be why QEMU cannot open it, and nowhere else', () => {
  const denied = new CutError('E_CUT', 'it failed', { cause: new Error('Permission denied'), outcome: 'unknown' });
  expect(withOwners(denied, ['a: expected 1, found 2'])).toMatchObject({
    code: 'E_CUT',
    outcome: 'unknown',
    message: 'it failed: Permission denied; a: expected 1, found 2',
  });
  expect(withOwners(denied, [])).toBe(denied);
  for (const other of [new CutError('E_CUT', 'no space'), new QuiesceError('E_LEVEL', 'Permission denied')]) {
    expect(withOwners(other, ['a: expected 1, found 2'])).toBe(other);
  }
});
