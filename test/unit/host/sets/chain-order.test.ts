import { describe, expect, test } from 'vitest';
import { oldestFirst } from '../../../../src/host/sets/chain-order.js';
import type { Manifest } from '../../../../src/host/sets/manifest.js';
import { manifest } from '../../../support/manifests.js';

const names = async (...manifests: readonly Manifest[]): Promise<string[]> =>
  (await oldestFirst(manifests)).map(({ set }) => set);

const on = (set: string, createdAt: string, base: string): Manifest => manifest(set, createdAt, base, `/img/a.${set}`);

describe('the order of sets', () => {
  test('is that of their images where the clock was set back between two cuts', async () => {
    const first = on('first', '2026-01-02T00:00:00Z', '/img/a');
    const second = on('second', '2026-01-01T00:00:00Z', '/img/a.first');
    const third = on('third', '2025-01-01T00:00:00Z', '/img/a.second');
    expect(await names(third, second, first)).toEqual(['first', 'second', 'third']);
  });

  test('is that of the clock where none lies on the other, and where a merged overlay is only a name', async () => {
    const first = on('first', '2026-01-01T00:00:00Z', '/img/b');
    const second = on('second', '2026-01-02T00:00:00Z', '/img/a');
    expect(await names(second, first)).toEqual(['first', 'second']);
    const [disk] = second.disks;
    if (disk === undefined) throw new Error('no disk');
    const merged = { ...second, disks: [{ ...disk, merged: true, overlay: { ...disk.overlay, file: '/img/b' } }] };
    expect(await names(merged, first)).toEqual(['first', 'second']);
  });

  test('is that of the images where the clock was set back between a merge and the next cut', async () => {
    const first = on('first', '2026-01-02T00:00:00Z', '/img/a');
    const merged = { ...first, state: 'committed' as const, disks: first.disks.map((d) => ({ ...d, merged: true })) };
    const second = on('second', '2026-01-01T00:00:00Z', '/img/a');
    expect(await names(second, merged)).toEqual(['first', 'second']);
  });

  test('has every set once, even where files name each other in a circle', async () => {
    const one = on('one', '2026-01-01T00:00:00Z', '/img/a.two');
    const two = on('two', '2026-01-02T00:00:00Z', '/img/a.one');
    expect((await names(one, two)).sort()).toEqual(['one', 'two']);
  });
});
