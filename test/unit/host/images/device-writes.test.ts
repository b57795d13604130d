// What sysfs tells of a block device, by a folder in its place.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { deviceWrites } from '../../../../src/host/images/device-writes.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

/** 8:16, as Linux packs it. */
const sdb = 0x810n;
const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
let folder: Scratch;
beforeEach(() => {
  folder = scratch();
  mkdirSync(folder.path('8:16/queue'), { recursive: true });
  writeFileSync(folder.path('device'), '');
});
afterEach(() => {
  folder[Symbol.dispose]();
});

async function counted(written: number, discarded: number, diskseq?: string): ReturnType<typeof deviceWrites> {
  writeFileSync(folder.path('8:16/queue/iostats'), '1\n');
  const fields = [1, 0, 8, 0, 1, 0, written, 0, 0, 0, 0, 1, 0, discarded, 0, 0, 0];
  writeFileSync(folder.path('8:16/stat'), `  ${fields.join('  ')}\n`);
  if (diskseq !== undefined) writeFileSync(folder.path('8:16/diskseq'), `${diskseq}\n`);
  return await deviceWrites(folder.path('device'), sdb, folder.dir);
}

test('counts what was written and discarded, of this boot and this device', async () => {
  expect(await counted(2048, 16, '7')).toEqual({ boot, disk: '7', sectors: '2048 16' });
  expect(await counted(0, 0, '7')).toEqual({ boot, disk: '7', sectors: '0 0' });
});

test('goes by the count where a kernel before 5.15 does not tell one device from the next', async () => {
  expect(await counted(2048, 16)).toEqual({ boot, disk: '', sectors: '2048 16' });
  expect(await counted(0, 0)).toBeUndefined();
});
