// The room that a restore in place needs beside the images.
import { truncateSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { checkRoom, growth } from '../../../../src/host/restore/growth.js';
import { scratch } from '../../../support/scratch.js';

const GIB = 2 ** 30;

test.each([
  ['nothing, where nothing differs', 0, 0, 0],
  ['nothing, where all has its place', 5, 10, 0],
  ['what differs, where nothing has', 5, 0, 5],
  ['what has no place yet, where that is less', 5, 7, 3],
  ['nothing, of an image that holds more than its disk', 5, 12, 0],
])('is %s', (_what, differing, allocated, expected) => {
  const image = { image: '', differing: differing * GIB, virtualSize: 10 * GIB };
  const grows = growth(image, allocated * GIB);
  expect(grows).toBeGreaterThanOrEqual(expected * GIB);
  expect(grows).toBeLessThanOrEqual(expected * GIB * 1.02);
});

test('is looked at before anything is written', async () => {
  using folder = scratch();
  const image = folder.path('sparse.raw');
  writeFileSync(image, '');
  truncateSync(image, GIB);
  await checkRoom([{ image, differing: 65_536, virtualSize: GIB }]);
  const much = { image, differing: 2 ** 52, virtualSize: 2 ** 52 };
  await expect(checkRoom([much])).rejects.toMatchObject({ code: 'E_NO_SPACE' });
  // Images on one filesystem share its room.
  const half = { image, differing: 2 ** 51, virtualSize: 2 ** 51 };
  await expect(checkRoom([half, half])).rejects.toThrow(folder.dir);
});
