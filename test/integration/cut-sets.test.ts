// What is done with sets at bad moments: half-merged, half-reverted, unreadable, and changed while somebody thought about
// the question. Nothing the VM wrote is lost without a word.
import { rmSync, writeFileSync, mkdirSync, existsSync } from 'node:fs';
import { basename } from 'node:path';
import { execa } from 'execa';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ManifestStore } from '../../src/host/sets/manifest-store.js';
import { socketAt } from '../../src/host/vm/place.js';
import type { Manifest } from '../../src/host/sets/manifest.js';
import { deleteSnapshot, type DeleteOptions } from '../../src/host/snapshot-delete.js';
import { revertSnapshot } from '../../src/host/snapshot-revert.js';
import { holdsPattern } from '../support/bare-qemu.js';
import { CutHarness, rootAndData } from '../support/cut-harness.js';
import { FakeMonitor } from '../support/fake-monitor.js';
import { requires } from '../support/requires.js';

const disks = rootAndData;
const never = new AbortController().signal;
let at: CutHarness;
beforeEach(async () => {
  at = await CutHarness.start(disks);
});
afterEach(async () => {
  await at[Symbol.asyncDispose]();
});

const overlay = (disk: string): string => at.overlay(disk);
const manifestFile = (): string => at.manifestFile();
const manifest = (): Manifest => at.manifest();
const change = (members: Partial<Manifest>): void => {
  at.changeManifest(members);
};
const jobs = async () => await at.jobs();

/** Cuts s1; the guest has written 2 over 1 since, on both disks. */
async function cut(): Promise<void> {
  for (const { name } of disks) await at.vm.write(name, 1, 0, 64);
  expect((await at.create('s1')).code).toBe(0);
  for (const { name } of disks) {
    await at.vm.write(name, 2, 0, 64);
    await at.vm.flush(name);
  }
}

/** What a commit of the first disk has done when it is killed before it dismisses its job. */
async function pivotFirst(): Promise<string> {
  const { id } = manifest();
  const [device] = (await at.vm.control.execute('query-block')) as { inserted: { 'node-name': string } }[];
  const job = `fsb-commit-${id}-0`;
  await at.vm.control.execute('block-commit', {
    'job-id': job,
    device: device?.inserted['node-name'],
    'auto-dismiss': false,
  });
  const until = async (status: string): Promise<void> => {
    while ((await jobs()).find((each) => each.id === job)?.status !== status) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  await until('ready');
  await at.vm.control.execute('job-complete', { id: job });
  await until('concluded');
  change({ state: 'committing' });
  return job;
}

async function expectCommitted(): Promise<void> {
  const commit = await at.bridge(['snapshot', 'commit', 's1']);
  expect(commit.error.message).toBe('none');
  expect(commit).toMatchObject({ code: 0, manifest: { state: 'committed' } });
  expect(await jobs()).toEqual([]);
  expect(await at.ourNodes()).toEqual([]);
  expect(at.images()).toEqual(['data0.qcow2', 'root0.raw']);
  await at.vm.quit();
  for (const { name, format } of disks) {
    expect(await holdsPattern(at.folder.path(`images/${name}.${format}`), format, 2, 0, 64)).toBe(true);
  }
}

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('a set', () => {
  describe('whose commit was killed', () => {
    test('before its job was dismissed', async () => {
      await cut();
      await pivotFirst();
      await expectCommitted();
    });

    test('before its job was dismissed, of a VM whose overlay went with the job', async () => {
      await cut();
      await at.restart(disks.map(({ name }) => ({ name, format: 'qcow2', file: overlay(name) })));
      await pivotFirst();
      await expectCommitted();
    });

    test('after its overlay was taken out of QEMU', async () => {
      await cut();
      const job = await pivotFirst();
      const [first, ...others] = manifest().disks;
      if (first === undefined) throw new Error('no disk');
      await at.vm.control.execute('blockdev-del', { 'node-name': first.overlay.node });
      change({ disks: [{ ...first, pivoted: true }, ...others] });
      // A job that is concluded keeps nobody from making a set.
      expect((await at.create('s2')).error.message).toBe('none');
      expect((await at.bridge(['snapshot', 'commit', 's2'])).error.message).toBe('none');
      await at.vm.control.execute('job-dismiss', { id: job });
      await expectCommitted();
    });

    test('is not merged a second time into a base that is newer', async () => {
      await cut();
      const [first, ...others] = manifest().disks;
      if (first === undefined) throw new Error('no disk');
      change({ state: 'committing', disks: [{ ...first, pivoted: true }, ...others] });
      const commit = await at.bridge(['snapshot', 'commit', 's1']);
      expect(commit).toMatchObject({ code: 5, error: { code: 'E_COMMIT' } });
      expect(commit.error.message).toContain('1 of 2 disks merged back; disk root0');
      expect(commit.error.message).toContain('its base is newer');
      expect(existsSync(overlay('root0'))).toBe(true);
    });
  });

  test('that is half merged is not deleted', async () => {
    await cut();
    change({ state: 'committing' });
    for (const turn of ['running', 'off']) {
      if (turn === 'off') await at.vm.quit();
      const run = await at.bridge(['snapshot', 'delete', 's1', '--yes']);
      expect(run).toMatchObject({ code: 2, error: { code: 'E_STATE_OF_SET' } });
      expect(existsSync(overlay('root0'))).toBe(true);
    }
  });

  describe('is looked at again after the question', () => {
    const options = (): Omit<DeleteOptions, 'confirm'> => ({
      store: new ManifestStore(at.folder.path('state'), basename(at.state())),
      stateDir: at.folder.path('state'),
      set: 's1',
      monitor: socketAt(at.folder.path('other.sock')),
      monitorTimeoutMs: 1000,
      signal: never,
    });
    const both = [
      ['revert', revertSnapshot],
      ['delete', deleteSnapshot],
    ] as const;

    test.each(both)('%s: a process that opened an image', async (_name, change_) => {
      await cut();
      await at.vm.quit();
      const readers: { kill(): boolean }[] = [];
      const confirm = async (): Promise<boolean> => {
        readers.push(execa('tail', ['-f', overlay('root0')], { reject: false, stdout: 'ignore' }));
        await new Promise((resolve) => setTimeout(resolve, 200));
        return true;
      };
      await expect(change_({ ...options(), confirm })).rejects.toMatchObject({ code: 'E_IN_USE' });
      for (const reader of readers) reader.kill();
      for (const { name } of disks) expect(await holdsPattern(overlay(name), 'qcow2', 2, 0, 64)).toBe(true);
    });

    test.each(['qmp.sock', 'other.sock'])('revert: a VM that was started, at %s', async (socket) => {
      await cut();
      await at.vm.quit();
      const monitors: FakeMonitor[] = [];
      const confirm = async (): Promise<boolean> => {
        monitors.push(await FakeMonitor.listen(at.folder.path(socket)));
        return true;
      };
      await expect(revertSnapshot({ ...options(), confirm })).rejects.toMatchObject({ code: 'E_VM_RUNS' });
      for (const monitor of monitors) await monitor[Symbol.asyncDispose]();
      expect(await holdsPattern(overlay('root0'), 'qcow2', 2, 0, 64)).toBe(true);
    });

    test.each(both)('%s: a newer set', async (_name, change_) => {
      await cut();
      await at.vm.quit();
      const confirm = (): Promise<boolean> => {
        mkdirSync(at.state('s2'));
        const [first] = manifest().disks;
        const above = { ...manifest(), set: 's2', id: 'x', disks: first && [{ ...first, base: first.overlay }] };
        writeFileSync(at.state('s2/manifest.json'), JSON.stringify(above));
        return Promise.resolve(true);
      };
      await expect(change_({ ...options(), confirm })).rejects.toMatchObject({ code: 'E_NEWER_SETS' });
      expect(existsSync(overlay('root0'))).toBe(true);
    });

    test.each(both)('%s: a signal', async (_name, change_) => {
      await cut();
      await at.vm.quit();
      const controller = new AbortController();
      const confirm = (): Promise<boolean> => {
        controller.abort('SIGTERM');
        return Promise.resolve(true);
      };
      const work = change_({ ...options(), confirm, signal: controller.signal });
      await expect(work).rejects.toMatchObject({ code: 'E_INTERRUPTED' });
      for (const { name } of disks) expect(await holdsPattern(overlay(name), 'qcow2', 2, 0, 64)).toBe(true);
      expect(at.images()).toHaveLength(4);
    });
  });

  test('is not reverted through another monitor than its VM has', async () => {
    await cut();
    const run = await at.bridge(['snapshot', 'revert', 's1', '--yes', '--qmp', at.folder.path('other.sock')]);
    expect(run).toMatchObject({ code: 2, error: { code: 'E_VM_RUNS' } });
  });

  test('of which it is not known whether it was cut is not reverted', async () => {
    await cut();
    await at.vm.quit();
    change({ state: 'cutting' });
    const run = await at.bridge(['snapshot', 'revert', 's1', '--yes']);
    expect(run).toMatchObject({ code: 2, error: { code: 'E_STATE_OF_SET' } });
    expect(await holdsPattern(overlay('root0'), 'qcow2', 2, 0, 64)).toBe(true);
  });

  test('of which one disk cannot be reverted keeps all of them', async () => {
    await cut();
    await at.vm.quit();
    mkdirSync(`${overlay('data0')}.revert`);
    const run = await at.bridge(['snapshot', 'revert', 's1', '--yes']);
    expect(run).toMatchObject({ code: 5, error: { code: 'E_REVERT' } });
    expect(manifest().state).toBe('cut');
    for (const { name } of disks) expect(await holdsPattern(overlay(name), 'qcow2', 2, 0, 64)).toBe(true);
    expect(existsSync(`${overlay('root0')}.revert`)).toBe(false);
  });

  test('that was reverted in part can only be reverted, to the end', async () => {
    await cut();
    await at.vm.quit();
    change({ state: 'reverting' });
    const deleted = await at.bridge(['snapshot', 'delete', 's1', '--yes']);
    expect(deleted).toMatchObject({ code: 2, error: { code: 'E_STATE_OF_SET' } });
    const run = await at.bridge(['snapshot', 'revert', 's1', '--yes']);
    expect(run).toMatchObject({ code: 0, manifest: { state: 'cut' } });
    for (const { name } of disks) expect(await holdsPattern(overlay(name), 'qcow2', 1, 0, 64)).toBe(true);
  });

  test('that was reverted in part, and of which an overlay is gone, can be deleted, drafts and all', async () => {
    await cut();
    await at.vm.quit();
    change({ state: 'reverting' });
    writeFileSync(`${overlay('data0')}.revert`, '');
    rmSync(overlay('root0'));
    const run = await at.bridge(['snapshot', 'revert', 's1', '--yes']);
    expect(run).toMatchObject({ code: 2, error: { code: 'E_NO_IMAGE' } });
    expect(await at.bridge(['snapshot', 'delete', 's1'])).toMatchObject({ code: 4, error: { code: 'E_DECLINED' } });
    expect((await at.bridge(['snapshot', 'delete', 's1', '--yes'])).error.message).toBe('none');
    expect(at.images()).toEqual(['data0.qcow2', 'root0.raw']);
    expect(existsSync(manifestFile())).toBe(false);
  });

  test('that was reverted in part is not committed', async () => {
    await cut();
    change({ state: 'reverting' });
    const run = await at.bridge(['snapshot', 'commit', 's1']);
    expect(run).toMatchObject({ code: 2, error: { code: 'E_STATE_OF_SET' } });
  });

  test('is left alone while another of its VM cannot be read', async () => {
    await cut();
    mkdirSync(at.state('bad'));
    writeFileSync(at.state('bad/manifest.json'), '{');
    const refused = { code: 2, error: { code: 'E_UNREADABLE_SETS' } };
    expect(await at.bridge(['snapshot', 'commit', 's1'])).toMatchObject(refused);
    await at.vm.quit();
    expect(await at.bridge(['snapshot', 'revert', 's1', '--yes'])).toMatchObject(refused);
    expect(await at.bridge(['snapshot', 'delete', 's1', '--yes'])).toMatchObject(refused);
    expect(at.images()).toHaveLength(4);
  });

  test("whose maker ended before it began can be deleted, and is in nobody's way", async () => {
    await cut();
    mkdirSync(at.state('s2'));
    expect(await at.create('s2')).toMatchObject({ code: 2, error: { code: 'E_NAME_TAKEN' } });
    expect((await at.bridge(['snapshot', 'commit', 's1'])).code).toBe(0);
    expect((await at.bridge(['snapshot', 'delete', 's2'])).code).toBe(0);
    expect((await at.create('s2')).code).toBe(0);
  });
});
