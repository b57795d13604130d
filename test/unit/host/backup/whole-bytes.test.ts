// What a full backup comes to where QEMU looks at what it copies.
import { expect, test } from 'vitest';
import { spread } from '../../../../src/host/backup/whole-bytes.js';

const MIB = 1024 * 1024;
const map = (...extents: [start: number, length: number, data: boolean][]) =>
  extents.map(([start, length, data]) => ({ start: start * MIB, length: length * MIB, data }));

test.each([
  ['nothing', map([0, 64, false]), 0],
  ['everything', map([0, 64, true]), 64],
  ['one place, and a piece on either side of it', map([0, 16, false], [16, 1, true], [17, 47, false]), 3],
  ['the first and the last bytes', map([0, 0.5, true], [0.5, 63, false], [63.5, 0.5, true]), 3],
  [
    'places that are near each other',
    map([0, 8, false], [8, 1, true], [9, 1, false], [10, 1, true], [11, 53, false]),
    5,
  ],
])('%s', (_what, extents, mebibytes) => {
  expect(spread(extents, 64 * MIB)).toBe(mebibytes * MIB);
});
