// Which VMs are recovered, and where they are found.
import { mkdirSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { ManifestStore } from '../../../../src/host/sets/manifest-store.js';
import { allManifests, allRecoverableVms } from '../../../../src/host/recover/recover-targets.js';
import { manifest } from '../../../support/manifests.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

let folder: Scratch;
beforeEach(async () => {
  folder = scratch();
  const store = new ManifestStore(folder.path('state'), 'vm1');
  for (const [set, qmp, at] of [
    ['old', '/run/old', '2026-01-01'],
    ['new', '/run/new', '2026-01-02'],
  ] as const) {
    await store.claim(set, '');
    await store.write({ ...manifest(set, at), vm: { name: 'vm1', qmp, qga: '/run/qga', status: 'running' } });
  }
  mkdirSync(folder.path('state/.hidden'));
});
afterEach(() => {
  folder[Symbol.dispose]();
});
const config = (): string => folder.path('vms.json');

it('are those of the state directory and of the configuration', async () => {
  writeFileSync(config(), JSON.stringify({ vms: { vm2: { qmp: '/run/q2' } } }));
  expect(await allRecoverableVms(folder.path('state'), config(), true)).toEqual([
    { name: 'vm1', qmp: ['/run/new', '/run/old'], qga: '/run/qga', configured: false },
    { name: 'vm2', qmp: ['/run/q2'], qga: undefined, configured: true },
  ]);
});

it('are found where the configuration says first', async () => {
  writeFileSync(config(), JSON.stringify({ vms: { vm1: { qmp: '/run/q1', qga: '/run/a1' } } }));
  expect(await allRecoverableVms(folder.path('state'), config(), true)).toEqual([
    { name: 'vm1', qmp: ['/run/q1', '/run/new', '/run/old'], qga: '/run/a1', configured: true },
  ]);
});

it('need no configuration, unless it was named; nor a state directory', async () => {
  expect((await allRecoverableVms(folder.path('state'), config(), false)).map(({ name }) => name)).toEqual(['vm1']);
  await expect(allRecoverableVms(folder.path('state'), config(), true)).rejects.toMatchObject({ code: 'E_CONFIG' });
  writeFileSync(config(), '{');
  await expect(allRecoverableVms(folder.path('state'), config(), false)).rejects.toMatchObject({ code: 'E_CONFIG' });
  expect(await allManifests(folder.path('none'))).toEqual([]);
  expect(await allManifests(folder.path('state'))).toHaveLength(2);
});
