// The lock for images that lie on the backups of a VM: it counts as long as they do, whoever has ended.
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import {
  heldAgain,
  imagesLocks,
  lockForImages,
  refuseStarted,
} from '../../../../src/host/repository/lock-for-images.js';
import { waitForReaders } from '../../../../src/host/repository/repository-lock.js';
import { thisProcess } from '../../../../src/host/sets/owner.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

let folder: Scratch;
const repository = () => ({ path: folder.dir, id: '0a1b2c3d' });
const waiting = { operation: 'backup forget', waitMs: 0, signal: new AbortController().signal };
const gone = { pid: 1, startTicks: '1', bootId: 'another', pidNamespace: '' };
const DAY_MS = 24 * 3_600_000;
beforeEach(() => {
  folder = scratch();
});
afterEach(() => {
  folder[Symbol.dispose]();
});

/** A qcow2 header, and what it names below the image. */
const image = (backing?: string): string => {
  const header = Buffer.alloc(512);
  header.writeUInt32BE(0x514649fb, 0);
  header.writeUInt32BE(3, 4);
  header.writeUInt32BE(104, 100);
  if (backing !== undefined) {
    header.writeBigUInt64BE(200n, 8);
    header.writeUInt32BE(header.write(backing, 200), 16);
  }
  writeFileSync(folder.path('disk.qcow2'), header);
  return folder.path('disk.qcow2');
};
const take = async () => {
  const images = [folder.path('disk.qcow2')];
  return await lockForImages(repository(), 'vm', { operation: 'backup restore --start', images });
};
const counts = async (): Promise<boolean> =>
  await waitForReaders(repository(), 'vm', waiting).then(
    () => false,
    () => true,
  );
const change = (members: object): void => {
  const [name = ''] = readdirSync(folder.path('locks'));
  const file = join(folder.path('locks'), name);
  writeFileSync(file, JSON.stringify({ ...(JSON.parse(readFileSync(file, 'utf8')) as object), ...members }));
};

test('counts before its images are there, while who makes them lives', async () => {
  await using lock = await take();
  await lock.check();
  expect(await counts()).toBe(true);
  change({ owner: gone });
  expect(await counts()).toBe(true);
  change({ expires: '2020-01-01T00:00:00.000Z' });
  expect(await counts()).toBe(false);
});

test('keeps the images that the VM had before from being backed up, as long as it counts', async () => {
  await refuseStarted(repository(), 'vm');
  await using lock = await take();
  await lock.check();
  await expect(refuseStarted(repository(), 'vm')).rejects.toMatchObject({ code: 'E_UNFINISHED' });
  await refuseStarted(repository(), 'another');
  change({ host: 'another', owner: gone });
  await expect(refuseStarted(repository(), 'vm')).rejects.toMatchObject({ code: 'E_UNFINISHED' });
  change({ expires: '2020-01-01T00:00:00.000Z' });
  await refuseStarted(repository(), 'vm');
});

test('counts while an image lies on another, whoever has ended and however long ago', async () => {
  await using lock = await take();
  image('/repository/vm/run/disk.qcow2');
  change({ owner: gone, expires: '2020-01-01T00:00:00.000Z' });
  await expect(waitForReaders(repository(), 'vm', waiting)).rejects.toThrow(/disk\.qcow2\): "backup recover"/);
  await lock.check();
  image();
  expect(await counts()).toBe(false);
});

test('is over when its images are whole; if they are not to be seen, when its time is over', async () => {
  image();
  const whole = await take();
  expect(await counts()).toBe(false);
  await whole[Symbol.asyncDispose]();
  image('/repository/vm/run/disk.qcow2');
  const lost = await take();
  expect(await counts()).toBe(true);
  rmSync(folder.path('disk.qcow2'));
  change({ owner: gone });
  // Their filesystem may not be mounted.
  expect(await counts()).toBe(true);
  change({ expires: '2020-01-01T00:00:00.000Z' });
  expect(await counts()).toBe(false);
  await lost[Symbol.asyncDispose]();
});

test('is handed over, left, found again and let go of', async () => {
  image('/repository/vm/run/disk.qcow2');
  const lock = await take();
  await lock.handOver(await thisProcess(), 7 * DAY_MS);
  lock.leave();
  await lock[Symbol.asyncDispose]();
  const [found, ...more] = await imagesLocks(repository(), 'vm');
  expect(more).toEqual([]);
  expect(Date.parse(found?.lock.expires ?? '')).toBeGreaterThan(Date.now() + 6 * DAY_MS);
  expect(await imagesLocks(repository(), 'other')).toEqual([]);
  if (found !== undefined) await heldAgain(found)[Symbol.asyncDispose]();
  expect(await imagesLocks(repository(), 'vm')).toEqual([]);
});

test("another host's counts until its time is over, and is not this host's to recover", async () => {
  await using lock = await take();
  image();
  change({ host: 'elsewhere' });
  expect(await counts()).toBe(true);
  expect(await imagesLocks(repository(), 'vm')).toEqual([]);
  await lock.check();
  change({ expires: '2020-01-01T00:00:00.000Z' });
  expect(await counts()).toBe(false);
});
