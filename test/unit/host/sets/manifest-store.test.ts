import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import * as v from 'valibot';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { manifestSchema } from '../../../../src/host/sets/manifest.js';
import { ManifestStore } from '../../../../src/host/sets/manifest-store.js';
import { newerSets } from '../../../../src/host/sets/set-state.js';
import { commands } from '../../../../src/qga/commands.js';
import { freezeReport } from '../../../support/freeze-reports.js';
import { manifest } from '../../../support/manifests.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

let folder: Scratch;
let store: ManifestStore;
beforeEach(() => {
  folder = scratch();
  store = new ManifestStore(folder.dir, 'vm1');
});
afterEach(() => {
  folder[Symbol.dispose]();
});

describe('ManifestStore', () => {
  test('writes what it reads, whole, with nothing left beside it', async () => {
    await store.claim('s1', '');
    const written = await store.write(manifest('s1', '2026-01-01T00:00:00Z'));
    expect(await store.read('s1')).toEqual(written);
    expect(readdirSync(folder.path('vm1/s1'))).toEqual(['journal.json', 'manifest.json']);
  });

  test('gives a name to one creator only', async () => {
    const results = await Promise.allSettled([store.claim('s1', ''), store.claim('s1', ''), store.claim('s1', '')]);
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    await expect(store.checkFree('s1')).rejects.toThrow('already has a snapshot set named s1');
  });

  test.each(['..', '.hidden', 'a/b', '', 'x'.repeat(101), '-rf'])('refuses the name %j', async (name) => {
    await expect(store.checkFree(name)).rejects.toThrow('expected 1 to 100');
    await expect(store.read(name)).rejects.toThrow('expected 1 to 100');
  });

  test('lists oldest first, and those apart that cannot be read', async () => {
    for (const [set, at] of [
      ['b', '2026-01-02T00:00:00Z'],
      ['a', '2026-01-03T00:00:00Z'],
    ] as const) {
      await store.claim(set, '');
      await store.write(manifest(set, at));
    }
    mkdirSync(folder.path('vm1/broken'));
    writeFileSync(folder.path('vm1/broken/manifest.json'), '{"format": 2}');
    const { manifests, unreadable } = await store.readAll();
    expect(manifests.map(({ set }) => set)).toEqual(['b', 'a']);
    expect(unreadable).toMatchObject([{ set: 'broken' }]);
    await expect(store.read('none')).rejects.toThrow('there: a, b, broken');
  });

  test('keeps the old text if the new one cannot be written', async () => {
    await store.claim('s1', '');
    await store.write(manifest('s1', '2026-01-01T00:00:00Z'));
    const before = readFileSync(store.file('s1'), 'utf8');
    mkdirSync(`${store.file('s1')}.${process.pid}.tmp`);
    await expect(store.write(manifest('s1', '2026-01-02T00:00:00Z'))).rejects.toThrow();
    expect(readFileSync(store.file('s1'), 'utf8')).toBe(before);
  });

  test('tells a name that was only taken from a manifest that cannot be read', async () => {
    await store.claim('s1', '');
    writeFileSync(folder.path('vm1/s1/manifest.json.1.tmp'), '{');
    expect((await store.readAll()).unreadable).toMatchObject([{ set: 's1', empty: true }]);
    expect(await store.readAllOrRefuse()).toEqual([]);
    await store.claim('s2', '');
    writeFileSync(store.file('s2'), '{');
    await expect(store.readAllOrRefuse()).rejects.toMatchObject({ code: 'E_UNREADABLE_SETS' });
    expect(await store.removeEmpty('s2')).toBe(false);
    expect(await store.removeEmpty('s1')).toBe(true);
    expect(await store.removeEmpty('s1')).toBe(false);
    expect(await store.names()).toEqual(['s2']);
  });

  test('lets no number in that JSON cannot hold', () => {
    const guest = freezeReport({ leaseMs: Infinity });
    expect(v.safeParse(manifestSchema, { ...manifest('s1'), guest }).success).toBe(false);
    expect(v.safeParse(manifestSchema, { ...manifest('s1'), guest: freezeReport() }).success).toBe(true);
    expect(v.safeParse(commands['bridge-thaw'].returns, { report: guest }).success).toBe(false);
  });

  test('forgets a set', async () => {
    await store.claim('s1', '');
    await store.remove('s1');
    expect(existsSync(folder.path('vm1/s1'))).toBe(false);
    expect(await new ManifestStore(folder.dir, 'other').names()).toEqual([]);
  });
});

describe('newerSets', () => {
  const low = manifest('low', '1');
  const high = manifest('high', '2', '/img/a.low');

  test('names the sets that lie on this one', async () => {
    expect(await newerSets(low, [low, high])).toEqual(['high']);
    expect(await newerSets(high, [low, high])).toEqual([]);
  });

  test('does not count what is merged or was never cut', async () => {
    expect(await newerSets(low, [low, { ...high, state: 'committed' }])).toEqual([]);
    expect(await newerSets(low, [low, { ...high, state: 'failed' }])).toEqual([]);
  });
});
