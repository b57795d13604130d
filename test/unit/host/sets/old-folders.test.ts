// Sets of older versions, which lie in a folder of their VM's name.
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readableStore } from '../../../../src/host/sets/find-vm.js';
import { Journal } from '../../../../src/host/sets/journal.js';
import { knownAs, recordedVm } from '../../../../src/host/sets/known-vms.js';
import { ManifestStore } from '../../../../src/host/sets/manifest-store.js';
import { lockVm, type LockedVm } from '../../../../src/host/sets/vm-lock.js';
import { identityKey, type VmIdentity } from '../../../../src/host/vm/identity.js';
import { socketAt } from '../../../../src/host/vm/place.js';
import { manifest } from '../../../support/manifests.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

const a = '11111111-2222-3333-4444-555555555555';
const b = 'aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee';
const ofA: VmIdentity = { kind: 'uuid', uuid: a };
const ofB: VmIdentity = { kind: 'uuid', uuid: b };
const noUuid = '00000000-0000-0000-0000-000000000000';
const vm = { name: 'db1', monitor: socketAt('/run/q') };
let folder: Scratch;
beforeEach(() => {
  folder = scratch();
});
afterEach(() => {
  folder[Symbol.dispose]();
});

async function old(name: string, set: string, uuid: string, qmp = '/run/q'): Promise<void> {
  const store = new ManifestStore(folder.dir, name);
  const journal = await Journal.claim(store, set);
  await store.write({ ...manifest(set), vm: { name, qmp, uuid, status: 'running' } });
  await journal.end();
}
const told: string[] = [];
async function lock(identity: VmIdentity): Promise<LockedVm> {
  const onProgress = (text: string): void => void told.push(text);
  return await lockVm(
    { stateDir: folder.dir, vm, operation: 'commit', waitMs: 0, onProgress },
    { identity, isSure: true },
  );
}

describe('old sets', () => {
  test('are read where they lie, and nothing is moved', async () => {
    await old('db1', 's1', a);
    const store = await readableStore(folder.dir, ofA, vm);
    expect(await store.read('s1')).toMatchObject({ set: 's1', state: 'cut' });
    expect(store.file('s1')).toBe(folder.path('db1/s1/manifest.json'));
    expect(readdirSync(folder.dir)).toEqual(['db1']);
  });

  test('are moved at the first use, from every name the VM had', async () => {
    await old('db1', 's1', a);
    await old('libvirt-db1', 's2', a);
    await using locked = await lock(ofA);
    expect(await locked.store.names()).toEqual(['s1', 's2']);
    expect(readdirSync(folder.dir)).toEqual([a]);
  });

  test('of one name are both kept: the second is called after its folder, and that is told', async () => {
    await old('db1', 's1', a);
    await old('other', 's1', a, '/run/other');
    const read = await readableStore(folder.dir, ofA, vm);
    expect(await read.names()).toEqual(['s1', 's1.other']);
    await using locked = await lock(ofA);
    expect(await locked.store.names()).toEqual(['s1', 's1.other']);
    expect(await locked.store.read('s1.other')).toMatchObject({ set: 's1.other', vm: { qmp: '/run/other' } });
    expect(told.join()).toContain('snapshot set s1 of other is called s1.other from now on');
  });

  test('of two VMs that had one name, one after the other, are told apart', async () => {
    await old('db1', 'of-a', a);
    await old('db1', 'of-b', b);
    await using locked = await lock(ofB);
    expect(await locked.store.names()).toEqual(['of-b']);
    expect(readdirSync(folder.path('db1'))).toEqual(['of-a']);
    await expect(locked.store.read('of-a')).rejects.toThrow(
      `another VM that was reached as db1 before has one: --vm ${a}`,
    );
  });

  test('of a VM without a UUID are those made through its monitor', async () => {
    await old('db1', 's1', noUuid);
    await old('db2', 's2', noUuid, '/run/q2');
    const identity: VmIdentity = { kind: 'address', address: '/run/q' };
    await using locked = await lock(identity);
    expect(await locked.store.names()).toEqual(['s1']);
    expect(readdirSync(folder.dir).sort()).toEqual([identityKey(identity), 'db2'].sort());
  });

  test('that cannot be read go with those beside them, unless these are of two VMs', async () => {
    await old('db1', 's1', a);
    mkdirSync(folder.path('db1/broken'));
    writeFileSync(folder.path('db1/broken/manifest.json'), '{');
    await old('mixed', 'of-a', a);
    await old('mixed', 'of-b', b);
    mkdirSync(folder.path('mixed/whose'));
    await using locked = await lock(ofA);
    expect((await locked.store.names()).sort()).toEqual(['broken', 'of-a', 's1']);
    expect(existsSync(folder.path('mixed/whose'))).toBe(true);
  });

  test('on which an older version is at work are not moved, nor anything else of their VM', async () => {
    await old('db1', 's1', a);
    await old('db2', 's2', a);
    const journal = await Journal.begin(new ManifestStore(folder.dir, 'db2'), 's2', 'commit');
    await expect(lock(ofA)).rejects.toMatchObject({ code: 'E_SET_BUSY' });
    expect(existsSync(folder.path('db1/s1'))).toBe(true);
    await journal.end();
    await using locked = await lock(ofA);
    expect(await locked.store.names()).toEqual(['s1', 's2']);
  });
});

describe('a VM that does not answer', () => {
  test('is found by its UUID, by the socket it was reached at, and by any name it had', async () => {
    await (await lock(ofA))[Symbol.asyncDispose]();
    await old('old-name', 's1', a);
    expect(await recordedVm(folder.dir, a.toUpperCase())).toEqual({ ...vm, identity: ofA });
    for (const name of ['db1', 'old-name']) expect(await recordedVm(folder.dir, name)).toEqual({ ...vm, name });
    expect(await recordedVm(folder.dir, 'nobody')).toBeUndefined();
    const known = await knownAs(folder.dir, { ...vm, name: 'whatever' });
    expect(known.map(({ identity }) => identity)).toEqual([ofA]);
  });

  test('and whose name stands for two is not guessed', async () => {
    await old('db1', 'of-a', a, '/run/a');
    await old('db1', 'of-b', b, '/run/b');
    await expect(recordedVm(folder.dir, 'db1')).rejects.toThrow(/stands for 2 VMs, .*: .*(of-a|of-b)/);
  });
});
