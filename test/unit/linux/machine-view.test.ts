// When the remembered look at mounts and disks is used again, and when it must not be.
import { afterEach, beforeEach, expect, test } from 'vitest';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { machineViewer } from '../../../src/linux/machine-view.js';
import { FakeMachine } from '../../support/fake-machine.js';

let dir: string;
let machine: FakeMachine;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'fsb-view-'));
  machine = new FakeMachine(dir);
  machine.mount({ device: machine.virtioDisk('vda', 2).device, mountpoint: '/' });
});
afterEach(() => {
  rmSync(dir, { recursive: true });
});

const uevents = (count: number): void => {
  machine.file('kernel/uevent_seqnum', `${count}\n`);
};

test('nothing changed: the same look, with what its lookup found', async () => {
  uevents(7);
  const view = machineViewer(machine);
  const first = await view();
  expect(first.lookup.disks().map(({ name }) => name)).toEqual(['vda']);
  expect(await view()).toBe(first);
  expect((await view()).lookup.disks()).toBe(first.lookup.disks());
});

test('a change of the mount table is a new look', async () => {
  uevents(7);
  const view = machineViewer(machine);
  const first = await view();
  machine.mount({ device: machine.virtioDisk('vdb', 3).device, mountpoint: '/data' });
  const second = await view();
  expect(second).not.toBe(first);
  expect(second.table.filesystems.map(({ mountpoint }) => mountpoint)).toEqual(['/', '/data']);
  expect(await view()).toBe(second);
});

test('a uevent is a new look', async () => {
  uevents(7);
  const view = machineViewer(machine);
  const first = await view();
  first.lookup.disks();
  machine.virtioDisk('vdb', 3);
  uevents(8);
  const second = await view();
  expect(second).not.toBe(first);
  expect(second.lookup.disks().map(({ name }) => name)).toEqual(['vda', 'vdb']);
});

test('nothing is remembered while udev has not written what it was told', async () => {
  uevents(7);
  const queue = join(machine.udevRoot, 'queue');
  writeFileSync(queue, '');
  const view = machineViewer(machine);
  const first = await view();
  expect(await view()).not.toBe(first);
  rmSync(queue);
  const settled = await view();
  expect(await view()).toBe(settled);
});

test('nothing is remembered where the kernel does not count uevents', async () => {
  const view = machineViewer(machine);
  expect(await view()).not.toBe(await view());
});
