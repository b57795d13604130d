// Which VMs are recovered, and where they are found.
import { mkdirSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { allManifests, allTargets, ownerless, withKnownWays } from '../../../../src/host/recover/recover-targets.js';
import { readableStore } from '../../../../src/host/sets/find-vm.js';
import { ManifestStore } from '../../../../src/host/sets/manifest-store.js';
import { noteReached } from '../../../../src/host/sets/vm-record.js';
import type { VmIdentity } from '../../../../src/host/vm/identity.js';
import { parsePlace, socketAt } from '../../../../src/host/vm/place.js';
import { manifest } from '../../../support/manifests.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

const uuid = '11111111-2222-3333-4444-555555555555';
const identity: VmIdentity = { kind: 'uuid', uuid };
let folder: Scratch;
let state: string;
beforeEach(async () => {
  folder = scratch();
  state = folder.path('state');
  // An older version's.
  const store = new ManifestStore(state, 'vm1');
  for (const [set, qmp, at] of [
    ['old', '/run/old', '2026-01-01'],
    ['new', '/run/new', '2026-01-02'],
  ] as const) {
    await store.claim(set, '');
    await store.write({ ...manifest(set, at), vm: { name: 'vm1', qmp, qga: '/run/qga', uuid, status: 'running' } });
  }
  mkdirSync(folder.path('state/.hidden'));
});
afterEach(() => {
  folder[Symbol.dispose]();
});
const config = (): string => folder.path('vms.json');

test('are those of the configuration and of the state directory', async () => {
  writeFileSync(config(), JSON.stringify({ vms: { vm2: { qmp: '/run/q2' } } }));
  expect(await allTargets(state, config(), true)).toEqual([
    { vm: { name: 'vm2', monitor: socketAt('/run/q2') }, configured: true },
    { vm: { name: 'vm1', identity, monitor: socketAt('/run/new'), agent: socketAt('/run/qga') }, configured: false },
  ]);
});

test('are found where the configuration says first, then where they were reached', async () => {
  mkdirSync(folder.path(`state/${uuid}`));
  await noteReached(state, identity, { name: 'db', monitor: socketAt('/run/db'), agent: socketAt('/run/db.qga') });
  const vm = { name: 'vm1', monitor: socketAt('/run/q1'), agent: socketAt('/run/a1') };
  const store = await readableStore(state, identity, vm);
  expect(await withKnownWays(state, { vm, configured: true }, identity, store)).toEqual({
    name: 'vm1',
    identity,
    monitors: ['/run/q1', '/run/db', '/run/new', '/run/old'].map(parsePlace),
    agent: socketAt('/run/a1'),
    configured: true,
  });
});

test('that had the name of another before are called by their UUID', async () => {
  writeFileSync(config(), JSON.stringify({ vms: { vm1: { qmp: '/run/new' } } }));
  expect((await allTargets(state, config(), true)).map(({ vm }) => vm.name)).toEqual(['vm1', uuid]);
});

test('need no configuration, unless it was named; nor a state directory', async () => {
  expect((await allTargets(state, config(), false)).map(({ vm }) => vm.name)).toEqual(['vm1']);
  await expect(allTargets(state, config(), true)).rejects.toMatchObject({ code: 'E_CONFIG' });
  writeFileSync(config(), '{');
  await expect(allTargets(state, config(), false)).rejects.toMatchObject({ code: 'E_CONFIG' });
  expect(await allManifests(folder.path('none'))).toEqual([]);
  expect(await allManifests(state)).toHaveLength(2);
});

test('do not hide what is nobody knows whose', async () => {
  mkdirSync(folder.path('state/lost/s1'), { recursive: true });
  writeFileSync(folder.path('state/lost/s1/manifest.json'), '{');
  mkdirSync(folder.path('state/at-run-q-01234567'));
  writeFileSync(folder.path('state/at-run-q-01234567/vm.json'), '{');
  expect((await ownerless(state)).map((each) => each.folder)).toEqual(['at-run-q-01234567', 'lost/s1']);
});
