// Commit: what keeps it from merging, what it does with a disk that cannot be merged, in doubt, and with the VM shut off.
// No byte that the VM wrote is lost, and a set says per disk what became of it.
import { existsSync, statSync, writeFileSync } from 'node:fs';
import { execa } from 'execa';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Manifest } from '../../src/host/sets/manifest.js';
import { BareQemu, holdsPattern, type BareDisk } from '../support/bare-qemu.js';
import { CutHarness, type Run } from '../support/cut-harness.js';
import { StepProxy, type Step } from '../support/lossy-proxy.js';
import { requires } from '../support/requires.js';

const root: BareDisk = { name: 'root0', format: 'raw' };
const data: BareDisk = { name: 'data0', format: 'qcow2' };
const disks = [root, data];
const originals = ['data0.qcow2', 'root0.raw'];
let at: CutHarness;
beforeEach(async () => {
  at = await CutHarness.start(disks);
});
afterEach(async () => {
  await at[Symbol.asyncDispose]();
});

const base = ({ name, format }: BareDisk): string => at.folder.path(`images/${name}.${format}`);
const overlay = ({ name }: BareDisk): string => at.overlay(name);
const onOverlay = (disk: BareDisk): BareDisk => ({ name: disk.name, format: 'qcow2', file: overlay(disk) });
const onBase = (disk: BareDisk): BareDisk => ({ ...disk, file: base(disk) });
const manifest = (): Manifest => at.manifest();
const change = (members: Partial<Manifest>): void => {
  at.changeManifest(members);
};
const commit = async (...words: string[]): Promise<Run> => await at.bridge(['snapshot', 'commit', 's1', ...words]);
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const jobs = async (): Promise<unknown[]> => await at.jobs();

/** Cuts s1; the guest has written 2 over 1 since, on both disks. */
async function cut(): Promise<void> {
  for (const { name } of disks) await at.vm.write(name, 1, 0, 128);
  expect((await at.create('s1')).error.message).toBe('none');
  for (const { name } of disks) {
    await at.vm.write(name, 2, 0, 64);
    await at.vm.flush(name);
  }
}

/** Every base holds the guest's newest, and nothing else is left; the VM is shut off. */
async function expectMerged(): Promise<void> {
  expect(manifest().state).toBe('committed');
  expect(at.images()).toEqual(originals);
  for (const disk of disks) await expectNewest(disk, base(disk), disk.format);
}

async function expectNewest({ name }: BareDisk, file: string, format: string): Promise<void> {
  expect(await holdsPattern(file, format, 2, 0, 64), name).toBe(true);
  expect(await holdsPattern(file, format, 1, 64, 64), name).toBe(true);
}

/** Refused before anything was changed. */
async function expectUntouched(run: Run, code: number, who: string): Promise<void> {
  expect(run.code).toBe(code);
  expect(run.error.message).toContain(who);
  expect(manifest()).toMatchObject({ state: 'cut', disks: [{ merged: false }, { merged: false }] });
  expect(await jobs()).toEqual([]);
  expect(await at.filesInUse()).toEqual(disks.map(overlay));
}

async function expectCommits(): Promise<void> {
  expect((await commit()).error.message).toBe('none');
  await at.vm.quit();
  await expectMerged();
}

/** QEMU dies when it was told to let the VM write to the base of the first disk again. */
async function killQemuAt(step: Step): Promise<void> {
  await using proxy = await StepProxy.listen(at.folder.path('proxy.sock'), at.vm.qmp, step);
  const work = commit('--qmp', proxy.path);
  await proxy.reached;
  await at.vm.kill();
  proxy.goOn();
  expect((await work).code).toBe(5);
  await at.vm[Symbol.asyncDispose]();
}

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('commit', () => {
  describe('is refused, and nothing is changed,', () => {
    beforeEach(cut);

    test('while a process copies from a base', async () => {
      const copier = execa('tail', ['-f', base(data)], { reject: false, stdout: 'ignore' });
      await sleep(200);
      await expectUntouched(await commit(), 2, `${base(data)}: it is in use by tail (process ${copier.pid ?? 0})`);
      copier.kill();
      await copier;
      await expectCommits();
    });

    test('while another VM reads a base', async () => {
      const clone = at.folder.path('clone.qcow2');
      await execa('qemu-img', ['create', '-q', '-f', 'qcow2', '-u', '-b', base(data), '-F', 'qcow2', clone, '16M']);
      {
        const other = at.folder.path('other');
        await execa('mkdir', [other]);
        const folder = { dir: other, path: (name: string) => `${other}/${name}`, [Symbol.dispose]: () => undefined };
        await using vm = await BareQemu.start(folder, [{ name: 'clone0', format: 'qcow2', file: clone }]);
        await expectUntouched(await commit(), 2, `it is in use by qemu-system-x86 (process ${vm.pid})`);
      }
      await expectCommits();
    });

    test('while a clone lies on a base', async () => {
      const clone = at.folder.path('images/clone.qcow2');
      await execa('qemu-img', ['create', '-q', '-f', 'qcow2', '-u', '-b', base(root), '-F', 'raw', clone, '16M']);
      await expectUntouched(await commit(), 2, `${clone} names it as its backing file`);
      await execa('rm', [clone]);
      await expectCommits();
    });

    test('while something lies on an overlay, which would be gone', async () => {
      const clone = at.folder.path('images/clone.qcow2');
      await execa('qemu-img', ['create', '-q', '-f', 'qcow2', '-u', '-b', overlay(root), '-F', 'qcow2', clone, '16M']);
      await expectUntouched(await commit(), 2, `${clone} names it as its backing file`);
    });

    test('while the VM itself exports a base', async () => {
      const addr = { type: 'unix', data: { path: at.folder.path('nbd.sock') } };
      await at.vm.control.execute('nbd-server-start', { addr });
      const what = { type: 'nbd', id: 'copy', 'node-name': 'node-data0', name: 'd' };
      await at.vm.control.execute('block-export-add', what);
      await expectUntouched(await commit(), 2, 'exports it (copy)');
    });

    test('while a set of another VM lies on a base', async () => {
      const other = { ...manifest(), set: 's9', id: 'x', vm: { ...manifest().vm, name: 'other' } };
      await execa('mkdir', ['-p', at.folder.path('state/other/s9')]);
      writeFileSync(at.folder.path('state/other/s9/manifest.json'), JSON.stringify(other));
      await expectUntouched(await commit(), 2, 'snapshot set s9 of other lies on it');
    });

    test('while the VM is on its way to another machine', async () => {
      await at.vm.beginMigration();
      await expectUntouched(await commit(), 5, 'the VM is being migrated or saved (active): s1 is not committed');
    });

    test('when the VM was taken over by another machine', async () => {
      await at.vm.control.execute('migrate', { uri: 'exec:cat >/dev/null' });
      const state = async (): Promise<unknown> => await at.vm.control.execute('query-status');
      await expect.poll(state, { timeout: 20_000 }).toMatchObject({ status: 'postmigrate' });
      await expectUntouched(await commit(), 5, 'the VM is in state postmigrate');
    });
  });

  test('does not let the VM change over once it is on its way to another machine', async () => {
    await cut();
    // Asked: before all, before the first merge, before the first change-over.
    const step = { command: 'query-migrate', nth: 3, when: 'before' } as const;
    await using proxy = await StepProxy.listen(at.folder.path('proxy.sock'), at.vm.qmp, step);
    const work = commit('--qmp', proxy.path);
    await proxy.reached;
    await at.vm.beginMigration();
    proxy.goOn();
    const run = await work;
    expect(run).toMatchObject({ code: 5, error: { code: 'E_COMMIT' } });
    expect(run.error.message).toContain('disk root0 is not merged');
    expect(run.error.message).toContain('disk data0: its merge was not begun');
    expect(await at.filesInUse()).toEqual(disks.map(overlay));
    expect(await jobs()).toEqual([]);
    expect(manifest().state).toBe('committing');
    await at.vm.cancelMigration();
    await expectCommits();
  });

  describe('with a disk that cannot be merged', () => {
    test('that QEMU refuses: the set is cut again, and nothing of it is merged', async () => {
      await cut();
      const devices = (await at.vm.control.execute('query-block')) as { inserted: { 'node-name': string } }[];
      for (const { inserted } of devices) {
        const device = inserted['node-name'];
        const sink = { driver: 'null-co', 'node-name': `to-${device}`, size: 16 * 1024 * 1024 };
        await at.vm.control.execute('blockdev-add', sink);
        const job = { 'job-id': `copy-${device}`, device, target: `to-${device}`, sync: 'none' };
        await at.vm.control.execute('blockdev-backup', job);
      }
      const run = await commit();
      expect(run).toMatchObject({ code: 5, error: { code: 'E_COMMIT' } });
      expect(run.error.message).toMatch(
        /^0 of 2 disks merged back; disk root0: QEMU refused block-commit: .*; disk data0: QEMU/,
      );
      expect(manifest().state).toBe('cut');
      expect(manifest().disks.map(({ merge }) => merge)).toEqual([undefined, undefined]);
      expect(await at.bridge(['recover'])).toMatchObject({ code: 0, json: { findings: [] } });
      for (const { id } of (await jobs()) as { id: string }[]) await at.vm.control.execute('job-cancel', { id });
      await expect.poll(jobs).toEqual([]);
      await expectCommits();
    });

    test('that QEMU refuses: the other is merged, and the set says so per disk', async () => {
      await cut();
      await at.vm.control.execute('blockdev-add', { driver: 'null-co', 'node-name': 'sink', size: 16 * 1024 * 1024 });
      const [device] = (await at.vm.control.execute('query-block')) as { inserted: { 'node-name': string } }[];
      const job = { 'job-id': 'copy', device: device?.inserted['node-name'], target: 'sink', sync: 'none' };
      await at.vm.control.execute('blockdev-backup', job);
      const run = await commit();
      expect(run).toMatchObject({ code: 5, error: { code: 'E_COMMIT' } });
      expect(run.error.message).toContain('1 of 2 disks merged back; disk root0: QEMU refused block-commit');
      expect(manifest()).toMatchObject({ state: 'cut', disks: [{ merged: false }, { merged: true }] });
      expect(manifest().disks[0]?.merge).toBe(undefined);
      expect(existsSync(overlay(data))).toBe(false);
      await at.vm.control.execute('job-cancel', { id: 'copy' });
      await expect.poll(jobs).toEqual([]);
      await expectCommits();
    });

    test('that was unplugged: the other is merged, it is named, and merged later', async () => {
      await at.vm.quit();
      const scsi: string[] = ['-device', 'virtio-scsi-pci,id=scsi'];
      scsi.push('-blockdev', `driver=raw,node-name=node-hot0,file.driver=file,file.filename=${base(root)}`);
      scsi.push('-device', 'scsi-hd,id=hot0,drive=node-hot0,serial=hot0');
      await at.vm[Symbol.asyncDispose]();
      at.vm = await BareQemu.start(at.folder, [data].map(onBase), scsi);
      expect((await at.create('s1', '--require', 'crash')).error.message).toBe('none');
      await at.vm.write('data0', 2, 0, 64);
      await at.vm.control.execute('device_del', { id: 'hot0' });
      await expect.poll(async () => ((await at.vm.control.execute('query-block')) as unknown[]).length).toBe(1);
      const run = await commit();
      expect(run).toMatchObject({ code: 5, error: { code: 'E_COMMIT' } });
      expect(run.error.message).toContain('1 of 2 disks merged back; disk hot0: overlay');
      expect(run.error.message).toContain('no disk of the VM uses it');
      expect(manifest()).toMatchObject({ state: 'cut' });
      expect(manifest().disks.map(({ id, merged }) => [id, merged])).toEqual(
        expect.arrayContaining([
          ['data0', true],
          ['hot0', false],
        ]),
      );
      expect(existsSync(overlay(root))).toBe(true);
      await at.vm.quit();
      expect((await commit('--offline')).error.message).toBe('none');
      expect(manifest().state).toBe('committed');
      expect(at.images()).toEqual(originals);
    });
  });

  describe('of single disks', () => {
    beforeEach(cut);

    test('merges these, and leaves the others cut', async () => {
      const run = await commit('--disk', 'data0');
      expect(run).toMatchObject({ code: 0, manifest: { state: 'cut' } });
      expect(run.manifest.disks.map(({ merged }) => merged)).toEqual([false, true]);
      expect(await at.filesInUse()).toEqual([overlay(root), base(data)]);
      expect(await at.bridge(['recover'])).toMatchObject({ code: 0, json: { findings: [] } });
      expect(await holdsPattern(base(root), 'raw', 1, 0, 128)).toBe(true);
      expect((await commit('--disk', base(root))).manifest.state).toBe('committed');
      await at.vm.quit();
      await expectMerged();
    });

    test('refuses a name that fits none', async () => {
      await expectUntouched(await commit('--disk', 'sda'), 2, '--disk "sda" fits no disk of s1');
    });

    test('goes on with these alone after its tool was killed', async () => {
      const words = ['snapshot', 'commit', 's1', '--disk', 'data0'];
      await at.killToolAt(words, { command: 'block-commit', when: 'before' });
      const run = await at.bridge(['recover']);
      expect(run).toMatchObject({ code: 0, json: { findings: [{ kind: 'set-commit', status: 'done' }] } });
      expect(manifest()).toMatchObject({ state: 'cut', disks: [{ merged: false }, { merged: true }] });
    });
  });

  test('keeps an overlay that somebody opened while it was merged: the set says that its base holds all', async () => {
    await cut();
    const step = { command: 'job-complete', when: 'before' } as const;
    await using proxy = await StepProxy.listen(at.folder.path('proxy.sock'), at.vm.qmp, step);
    const work = commit('--qmp', proxy.path);
    await proxy.reached;
    const reader = execa('tail', ['-f', overlay(root)], { reject: false, stdout: 'ignore' });
    await sleep(200);
    proxy.goOn();
    const run = await work;
    expect(run).toMatchObject({ code: 5, error: { code: 'E_COMMIT' } });
    expect(run.error.message).toContain('is merged, but not removed: it is in use by tail');
    expect(manifest()).toMatchObject({
      state: 'committing',
      disks: [{ pivoted: true, merged: false }, { merged: true }],
    });
    reader.kill();
    await reader;
    await expectCommits();
  });

  describe('after QEMU died when the VM was to change over', () => {
    beforeEach(cut);

    test('and was started from the base: asks before the overlay goes', async () => {
      await killQemuAt({ command: 'job-complete', when: 'after' });
      await at.start([onBase(root), onOverlay(data)]);
      const asked = await commit();
      expect(asked).toMatchObject({ code: 4, error: { code: 'E_DECLINED' } });
      expect(asked.error.message).toContain(`If ${base(root)} is newer than ${overlay(root)}, commit the set`);
      expect(existsSync(overlay(root))).toBe(true);
      expect(manifest().disks[0]).toMatchObject({ pivoting: true, merged: false });
      expect((await commit('--yes')).error.message).toBe('none');
      await at.vm.quit();
      await expectMerged();
    });

    test('and was started from the base, which had not got it: the only copy stays', async () => {
      // Told to change over by the record alone: the merge never came to it.
      await at.vm.quit();
      const [first, ...others] = manifest().disks;
      if (first === undefined) throw new Error('no disk');
      change({ state: 'committing', disks: [{ ...first, merge: 'begun', pivoting: true }, ...others] });
      await at.start([onBase(root), onOverlay(data)]);
      expect(await commit()).toMatchObject({ code: 4, error: { code: 'E_DECLINED' } });
      expect(await at.bridge(['recover'])).toMatchObject({ code: 8 });
      await expectNewest(root, overlay(root), 'qcow2');
    });

    test('and was started from the overlay: asks before it is merged over what the base got', async () => {
      await killQemuAt({ command: 'job-complete', when: 'after' });
      await at.start(disks.map(onOverlay));
      await at.vm.write('root0', 2, 0, 64);
      const asked = await commit();
      expect(asked).toMatchObject({ code: 4, error: { code: 'E_DECLINED' } });
      expect(asked.error.message).toContain(`what it wrote to ${base(root)} until then is lost`);
      const recovered = await at.bridge(['recover']);
      expect(recovered).toMatchObject({ code: 8, json: { findings: [{ kind: 'set-commit', status: 'yours' }] } });
      expect((await commit('--yes')).error.message).toBe('none');
      await at.vm.quit();
      await expectMerged();
    });

    test('and is shut off: merges by itself what reads the same', async () => {
      await killQemuAt({ command: 'job-complete', when: 'after' });
      expect((await commit('--offline')).error.message).toBe('none');
      await expectMerged();
    });

    test('and is shut off: asks if base and overlay differ', async () => {
      await killQemuAt({ command: 'job-complete', when: 'after' });
      await execa('qemu-io', ['-f', 'raw', '-c', 'write -P 7 0 4k', base(root)]);
      const asked = await commit('--offline');
      expect(asked).toMatchObject({ code: 4, error: { code: 'E_DECLINED' } });
      expect(asked.error.message).toContain(`If ${base(root)} is the newer one, start the VM from it`);
      expect(await holdsPattern(base(root), 'raw', 7, 0, 4)).toBe(true);
      await expectNewest(root, overlay(root), 'qcow2');
    });
  });

  test('asks before an overlay goes that was written after it was merged', async () => {
    await cut();
    const [first, ...others] = manifest().disks;
    if (first === undefined) throw new Error('no disk');
    await at.vm.quit();
    const pivotedAt = new Date(statSync(overlay(root)).mtimeMs - 60_000).toISOString();
    const disk = { ...first, merge: 'begun', pivoted: true, pivotedAt } as const;
    change({ state: 'committing', disks: [disk, ...others] });
    await at.start([onBase(root), onOverlay(data)]);
    expect(await commit()).toMatchObject({ code: 4, error: { code: 'E_DECLINED' } });
    await expectNewest(root, overlay(root), 'qcow2');
  });

  describe('--offline', () => {
    test('merges with the VM shut off, and removes the overlays', async () => {
      await cut();
      await at.vm.quit();
      expect((await commit('--offline')).error.message).toBe('none');
      await expectMerged();
      expect((await execa('qemu-img', ['check', base(data)])).exitCode).toBe(0);
      await at.start(disks.map(onBase));
      expect((await at.create('s2')).code).toBe(0);
    });

    test('is refused while the VM runs, or anybody uses one of the files', async () => {
      await cut();
      await expectUntouched(await commit('--offline'), 2, 'the VM runs');
      await at.vm.quit();
      const reader = execa('tail', ['-f', base(data)], { reject: false, stdout: 'ignore' });
      await sleep(200);
      const run = await commit('--offline');
      expect(run).toMatchObject({ code: 2, error: { code: 'E_IN_USE' } });
      expect(manifest().state).toBe('cut');
      reader.kill();
      await reader;
      const unseen = await BareQemu.start(at.folder, disks.map(onOverlay));
      const elsewhere = at.folder.path('none.sock');
      await execa('rm', [at.folder.path('qmp.sock')]);
      expect(await commit('--offline', '--qmp', elsewhere)).toMatchObject({ code: 2, error: { code: 'E_IN_USE' } });
      await unseen[Symbol.asyncDispose]();
      expect((await commit('--offline')).error.message).toBe('none');
      await expectMerged();
    });

    test('asks if the base was written after the cut', async () => {
      await cut();
      await at.vm.quit();
      await sleep(20);
      await execa('qemu-io', ['-f', 'raw', '-c', 'write -P 7 8M 4k', base(root)]);
      const asked = await commit('--offline');
      expect(asked).toMatchObject({ code: 4, error: { code: 'E_DECLINED' } });
      expect(asked.error.message).toContain(`${base(root)} was changed after the cut`);
      expect(manifest().state).toBe('cut');
      expect((await commit('--offline', '--yes')).error.message).toBe('none');
      await expectMerged();
    });

    test('refuses an overlay that holds internal snapshots, which no merge keeps', async () => {
      await cut();
      await at.vm.quit();
      await execa('qemu-img', ['snapshot', '-c', 'inner', overlay(root)]);
      const refused = await commit('--offline', '--yes');
      expect(refused).toMatchObject({ code: 2, error: { code: 'E_INTERNAL_SNAPSHOTS' } });
      expect(refused.error.message).toContain(`${overlay(root)} holds 1 internal snapshots`);
      expect(manifest().state).toBe('cut');
      await execa('qemu-img', ['snapshot', '-d', 'inner', overlay(root)]);
      expect((await commit('--offline')).error.message).toBe('none');
      await expectMerged();
    });

    test('ends at its limit, and goes on when it is called again', async () => {
      await at.vm.write('root0', 1, 0, 128);
      expect((await at.create('s1')).code).toBe(0);
      await at.vm.write('root0', 2, 0, 8192);
      await at.vm.quit();
      const run = await commit('--offline', '--speed', '1', '--timeout', '1.5');
      expect(run).toMatchObject({ code: 5, error: { code: 'E_COMMIT' } });
      expect(run.error.message).toContain('no end within 1500 ms');
      expect(run.error.message).toContain('disk root0');
      expect(manifest()).toMatchObject({ state: 'committing', disks: [{ merge: 'begun' }, { merged: true }] });
      expect(await holdsPattern(overlay(root), 'qcow2', 2, 0, 8192)).toBe(true);
      expect((await commit('--offline')).error.message).toBe('none');
      expect(await holdsPattern(base(root), 'raw', 2, 0, 8192)).toBe(true);
      expect(at.images()).toEqual(originals);
    });

    test('killed at any instant, and called again, comes to the same bytes', { timeout: 120_000 }, async () => {
      for (const { name } of disks) await at.vm.write(name, 1, 0, 8192);
      expect((await at.create('s1')).code).toBe(0);
      for (const { name } of disks) await at.vm.write(name, 2, 1024, 4096);
      await at.vm.quit();
      for (let turn = 0; turn < 8 && manifest().state !== 'committed'; turn++) {
        const child = at.spawn(['snapshot', 'commit', 's1', '--offline', '--speed', '4']);
        await sleep(300 + turn * 400);
        child.kill('SIGKILL');
        await child;
        await at.leftQemuImgEnded();
      }
      if (manifest().state !== 'committed') expect((await commit('--offline')).error.message).toBe('none');
      expect(at.images()).toEqual(originals);
      for (const disk of disks) {
        expect(await holdsPattern(base(disk), disk.format, 1, 0, 1024)).toBe(true);
        expect(await holdsPattern(base(disk), disk.format, 2, 1024, 4096)).toBe(true);
        expect(await holdsPattern(base(disk), disk.format, 1, 5120, 3072)).toBe(true);
      }
      expect((await execa('qemu-img', ['check', base(data)], { reject: false })).exitCode).not.toBe(2);
    });
  });
});
