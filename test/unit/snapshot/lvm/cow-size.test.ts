import { describe, expect, test } from 'vitest';
import { cowSizes } from '../../../../src/snapshot/lvm/cow-size.js';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
const room = (freeBytes: number) => ({ freeBytes, extentBytes: 4 * MIB });
const origin = (sizeBytes: number, writtenPerS?: number) => ({ name: 'vg/lv', sizeBytes, writtenPerS });

describe('the room of a snapshot', () => {
  test('is a tenth of its origin, or what two hours write if that is more', () => {
    expect(cowSizes([origin(10 * GIB)], {}, room(100 * GIB))).toEqual([GIB]);
    expect(cowSizes([origin(10 * GIB, MIB)], {}, room(100 * GIB))).toEqual([7200 * MIB]);
  });

  test('is never more than the origin itself can need, nor less than 32 MiB', () => {
    expect(cowSizes([origin(10 * GIB, GIB)], {}, room(100 * GIB))[0]).toBeLessThan(10.2 * GIB);
    expect(cowSizes([origin(100 * MIB)], {}, room(100 * GIB))).toEqual([32 * MIB]);
  });

  test('is what was asked for, in whole extents', () => {
    expect(cowSizes([origin(GIB)], { size: { bytes: 5 * MIB } }, room(GIB))).toEqual([8 * MIB]);
    expect(cowSizes([origin(GIB), origin(2 * GIB)], { size: { part: 0.25 } }, room(GIB))).toEqual([
      256 * MIB,
      512 * MIB,
    ]);
  });

  test('is cut down together where the group has less, but not what was asked for', () => {
    expect(cowSizes([origin(10 * GIB), origin(30 * GIB)], {}, room(GIB))).toEqual([216 * MIB, 600 * MIB]);
    const small = cowSizes([origin(48 * MIB), origin(300 * MIB, MIB)], {}, room(72 * MIB));
    expect(small).toEqual([32 * MIB, 32 * MIB]);
    expect(() => cowSizes([origin(10 * GIB)], { size: { bytes: 2 * GIB } }, room(GIB))).toThrow(
      'snapshots of vg/lv: expected 2048 MiB free in the volume group, found 1024 MiB',
    );
  });

  test('is refused where even the least does not fit', () => {
    expect(() => cowSizes([origin(10 * GIB), origin(GIB)], {}, room(60 * MIB))).toThrow('expected 64 MiB free');
  });
});
