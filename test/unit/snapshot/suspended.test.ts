import { expect, test } from 'vitest';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { resumeSuspended, suspendedOf } from '../../../src/snapshot/suspended.js';
import { scratch } from '../../support/scratch.js';

const ORIGIN = `LVM-${'a'.repeat(64)}`;

/** A sysfs with the devices named, `254:0` first: each with its uuid, whether it is suspended, and what it lies on. */
function sysfs(
  devices: readonly (readonly [name: string, uuid: string, suspended: 0 | 1, slaves?: readonly number[]])[],
) {
  const folder = scratch();
  mkdirSync(folder.path('dev/block'), { recursive: true });
  for (const [minor, [name, uuid, suspended, slaves = []]] of devices.entries()) {
    const block = folder.path(`block/dm-${minor}`);
    for (const inner of ['dm', 'slaves']) mkdirSync(`${block}/${inner}`, { recursive: true });
    for (const [file, text] of Object.entries({ name, uuid, suspended }))
      writeFileSync(`${block}/dm/${file}`, `${text}\n`);
    writeFileSync(`${block}/dev`, `254:${minor}\n`);
    for (const slave of slaves) mkdirSync(`${block}/slaves/dm-${slave}`);
    symlinkSync(block, folder.path(`dev/block/254:${minor}`));
  }
  return folder;
}

const devices = [
  ['vg-data', ORIGIN, 1, [1]],
  ['vg-data-real', `${ORIGIN}-real`, 1],
  ['vg-fsb_r1_c0-cow', `LVM-${'b'.repeat(64)}-cow`, 1],
  ['vg-fsb_r2_c0', `LVM-${'c'.repeat(64)}`, 1],
  ['vg-other', `LVM-${'d'.repeat(64)}`, 1],
] as const;

test('what is suspended of a volume is resumed from within, and nothing of others', async () => {
  using folder = sysfs(devices);
  const calls: string[] = [];
  const run = async (words: readonly string[]) => {
    calls.push(words.join(' '));
    return await Promise.resolve({ exitCode: 0, stdout: '', stderr: '' });
  };
  await resumeSuspended(run, folder.dir, { device: '254:0', run: 'r1' });
  expect(calls).toEqual(
    ['vg-data-real', 'vg-fsb_r1_c0-cow', 'vg-data'].map((name) => `dmsetup --noudevsync resume ${name}`),
  );
});

test('what is not suspended, or not device-mapper at all, is left alone', () => {
  using folder = sysfs([
    ['vg-data', ORIGIN, 0],
    ['vg-other', `LVM-${'d'.repeat(64)}`, 1],
  ]);
  expect(suspendedOf(folder.dir, { device: '254:0', run: 'r1' })).toEqual([]);
  expect(suspendedOf(folder.dir, { device: '8:1', run: 'r1' })).toEqual([]);
});
