import { expect, test, vi } from 'vitest';
import { watchSnapshots } from '../../../src/snapshot/watch.js';
import { fakeProvider, type FakeProvider } from '../../support/fake-provider.js';
import type { Volume } from '../../../src/snapshot/volume.js';

const volume = { mountpoint: '/srv', device: '254:1', type: 'ext4' } as unknown as Volume;

async function watched(provider: FakeProvider) {
  const snapshots = await provider.plan('r1', [volume], {});
  const notes: string[] = [];
  const onLost = vi.fn();
  const watch = watchSnapshots(snapshots, { onNote: (text) => notes.push(text), onLost });
  return { watch, notes, onLost };
}

test('a snapshot that fills up is extended from 70 % on', async () => {
  const provider = fakeProvider('lvm');
  provider.status = { state: 'whole', usedBytes: 69, totalBytes: 100 };
  const { watch } = await watched(provider);
  await vi.waitFor(() => {
    expect(provider.calls).not.toContain('extend /srv');
  });
  provider.status = { state: 'whole', usedBytes: 70, totalBytes: 100 };
  expect(await watch.end()).toBeUndefined();
  expect(provider.calls).toContain('extend /srv');
});

test('one that cannot be is told of once', async () => {
  const provider = fakeProvider('lvm');
  provider.status = { state: 'whole', usedBytes: 90, totalBytes: 100 };
  provider.hasRoom = false;
  const { watch, notes } = await watched(provider);
  await watch.end();
  expect(notes).toEqual([expect.stringMatching(/of \/srv is nearly full, and there is no room to extend it$/)]);
});

test.each([
  ['lost', /is lost: its room was used up/],
  ['gone', /is gone$/],
] as const)('one that is %s is told of at once, and at the end', async (state, reason) => {
  const provider = fakeProvider('lvm');
  provider.status = { state };
  const { watch, onLost } = await watched(provider);
  expect(await watch.end()).toMatch(reason);
  expect(onLost).toHaveBeenCalledExactlyOnceWith(expect.stringMatching(reason));
});

test('one of which nobody can tell whether it is whole is as good as lost at the end, and not before', async () => {
  const provider = fakeProvider('lvm');
  const [snapshot] = await provider.plan('r1', [volume], {});
  if (snapshot === undefined) throw new Error('nothing was planned');
  let tries = 0;
  const blind = {
    ...snapshot,
    status: async () => {
      tries += 1;
      return await Promise.reject(new Error('dmsetup: it is not installed'));
    },
  };
  const [onLost, onNote] = [vi.fn(), vi.fn()];
  const watch = watchSnapshots([blind], { onNote, onLost });
  await vi.waitFor(
    () => {
      expect(onNote).toHaveBeenCalled();
    },
    { timeout: 10_000 },
  );
  expect(onLost).not.toHaveBeenCalled();
  expect(await watch.end()).toMatch(/of \/srv is whole cannot be told: dmsetup: it is not installed$/);
  expect(tries).toBe(4);
});

test('one that is whole and fails to be extended is not lost', async () => {
  const provider = fakeProvider('lvm');
  provider.status = { state: 'whole', usedBytes: 90, totalBytes: 100 };
  const [snapshot] = await provider.plan('r1', [volume], {});
  if (snapshot === undefined) throw new Error('nothing was planned');
  const stuck = { ...snapshot, extend: async () => await Promise.reject(new Error('the group is locked')) };
  const [onLost, onNote] = [vi.fn(), vi.fn()];
  expect(await watchSnapshots([stuck], { onNote, onLost }).end()).toBeUndefined();
  expect(onLost).not.toHaveBeenCalled();
  expect(onNote).toHaveBeenCalledWith(expect.stringMatching(/the group is locked$/));
});
