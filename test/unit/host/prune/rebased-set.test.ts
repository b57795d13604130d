import { describe, expect, test } from 'vitest';
import { asRebasing, needsRebasing, withoutLayer } from '../../../../src/host/prune/rebased-set.js';
import type { FileState } from '../../../../src/host/images/file-state.js';
import type { Manifest, ManifestDisk } from '../../../../src/host/sets/manifest.js';
import { manifest } from '../../../support/manifests.js';

const state = (mtimeMs: number): FileState => ({ device: '1', inode: '2', size: 3, mtimeMs });
const base = { node: 'a', file: '/img/a', format: 'raw' };
const o1 = { file: '/img/a.s1', format: 'qcow2' };
const o2 = { file: '/img/a.s2', format: 'qcow2' };
const states = new Map([
  ['/img/a', state(10)],
  ['/img/a.s2', state(20)],
]);
const gone = { layer: o1.file, base, states };

/** The set whose cut lies in `layers`, the base first. */
const setOn = (set: string, layers: readonly ManifestDisk['base'][], more: Partial<ManifestDisk> = {}): Manifest => {
  const plain = manifest(set);
  const [first, ...below] = layers;
  if (first === undefined) throw new Error('no layers');
  return { ...plain, disks: plain.disks.map((disk) => ({ ...disk, base: first, below, ...more })) };
};
const diskOf = (set: Manifest | undefined): ManifestDisk | undefined => set?.disks[0];

describe('a set, when a layer is merged into the one below', () => {
  test('that lies on it lies on what holds it now', () => {
    const told = diskOf(withoutLayer(setOn('s2', [{ ...o1, asCut: state(1) }, base], { rebasing: true }), gone));
    expect(told).toMatchObject({ base: { ...base, asCut: state(10) }, below: [] });
    expect(told).not.toHaveProperty('rebasing');
  });

  test('of an older version, which names no layers below, does so, too', () => {
    const plain = manifest('s2', '2026-01-01T00:00:00Z', o1.file);
    const told = diskOf(withoutLayer(plain, gone));
    expect(told?.base.file).toBe('/img/a');
    expect(told).not.toHaveProperty('below');
  });

  test('that lies on the layer above it knows how that is, with its new header', () => {
    const before = setOn('s3', [{ ...o2, asCut: state(2) }, o1, base], { rebasing: true });
    const told = diskOf(withoutLayer(before, gone));
    expect(told).toMatchObject({ base: { ...o2, asCut: state(20) }, below: [{ ...base, asCut: state(10) }] });
    expect(told).not.toHaveProperty('rebasing');
  });

  test('that lies elsewhere stays as it is', () => {
    expect(withoutLayer(setOn('x', [{ file: '/img/b', format: 'raw' }]), gone)).toBeUndefined();
    expect(withoutLayer(setOn('s2', [o1, base], { merged: true }), gone)).toBeUndefined();
  });

  test('on a device is not known to hold its cut afterwards, if it was not before', () => {
    const counted = (boot: string, sectors: string): FileState => ({
      ...state(1),
      writes: { boot, disk: '7', sectors },
    });
    const after = new Map([['/img/a', counted('today', '9 0')]]);
    const told = (inS1: FileState | undefined, inS2: FileState): unknown => {
      const merged = inS1 === undefined ? base : { ...base, asCut: inS1 };
      const set = setOn('s2', [o1, { ...base, asCut: inS2 }], { rebasing: true });
      return diskOf(withoutLayer(set, { ...gone, base: merged, states: after }))?.base.asCut;
    };
    expect(told(counted('yesterday', '5 0'), counted('yesterday', '5 0'))).toEqual(state(1));
    expect(told(undefined, state(1))).toEqual(state(1));
    expect(told(counted('today', '5 0'), counted('today', '5 0'))).toEqual(counted('today', '9 0'));
    // A kernel that does not tell whether the device was made anew.
    const untold = { ...state(1), writes: { boot: 'today', disk: '', sectors: '5 0' } };
    const later = { ...gone, base: { ...base, asCut: untold }, states: new Map([['/img/a', untold]]) };
    expect(diskOf(withoutLayer(setOn('s2', [o1], { rebasing: true }), later))?.base.asCut).toEqual(state(1));
    // Cut after the boot that made the older one unknown.
    expect(told(counted('yesterday', '5 0'), counted('today', '5 0'))).toEqual(counted('today', '9 0'));
  });

  test('says beforehand that the time of its base will say nothing', () => {
    const set = setOn('s2', [o1, base]);
    expect(needsRebasing(set, [o1.file])).toBe(true);
    expect(needsRebasing(set, [o2.file])).toBe(false);
    // Of a set farther above the layers below change.
    expect(needsRebasing(setOn('s3', [o2, o1, base]), [o1.file])).toBe(true);
    expect(diskOf(asRebasing(setOn('s3', [o2, o1, base]), [o1.file]))?.rebasing).toBe(true);
    expect(needsRebasing(asRebasing(set, [o1.file]), [o1.file])).toBe(false);
  });
});
