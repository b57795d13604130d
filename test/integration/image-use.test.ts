// A file is touched only if nobody needs it: what revert and delete refuse, each with the one who needs the file, and what
// they leave alone. What is refused has changed nothing.
import { existsSync, linkSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { execa } from 'execa';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { isLockedByQemu } from '../../src/host/images/image-lock.js';
import { useOf } from '../../src/host/images/use.js';
import type { Manifest } from '../../src/host/sets/manifest.js';
import { HOST_TOOL } from '../../vm-images/demo/bridge.js';
import { BareQemu, holdsPattern } from '../support/bare-qemu.js';
import { CutHarness, rootAndData, type Run } from '../support/cut-harness.js';
import { requires } from '../support/requires.js';
import { scratch, type Scratch } from '../support/scratch.js';

const disks = rootAndData;
let at: CutHarness;
let elsewhere: Scratch;
beforeEach(async () => {
  at = await CutHarness.start(disks);
  elsewhere = scratch();
});
afterEach(async () => {
  await at[Symbol.asyncDispose]();
  elsewhere[Symbol.dispose]();
});

const overlay = (disk: string, set = 's1'): string => at.overlay(disk, set);
const manifestFile = (set = 's1', vm = basename(at.state())): string =>
  at.folder.path(`state/${vm}/${set}/manifest.json`);
const manifest = (set = 's1'): Manifest => JSON.parse(readFileSync(manifestFile(set), 'utf8')) as Manifest;
const nobody = { monitors: [], claims: [], folders: [], spent: [], unknown: [] };

/** Cuts s1; the guest has written 2 over 1 since; then the VM is shut off. */
async function cutAndShutOff(): Promise<void> {
  for (const { name } of disks) await at.vm.write(name, 1, 0, 64);
  expect((await at.create('s1')).error.message).toBe('none');
  for (const { name } of disks) await at.vm.write(name, 2, 0, 64);
  await at.vm.quit();
}

async function makeOn(base: string, file: string, ...options: string[]): Promise<string> {
  mkdirSync(dirname(file), { recursive: true });
  await execa('qemu-img', ['create', '-q', '-f', 'qcow2', '-u', '-b', base, '-F', 'qcow2', ...options, file, '16M']);
  return file;
}

async function expectRefused(what: 'revert' | 'delete', who: string, code = 'E_IN_USE'): Promise<Run> {
  const run = await at.bridge(['snapshot', what, 's1', '--yes']);
  expect(run).toMatchObject({ code: 2, error: { code } });
  expect(run.error.message).toContain(who);
  expect(manifest().state).toBe('cut');
  for (const { name } of disks) expect(await holdsPattern(overlay(name), 'qcow2', 2, 0, 64)).toBe(true);
  return run;
}

async function expectDone(what: 'revert' | 'delete'): Promise<void> {
  expect((await at.bridge(['snapshot', what, 's1', '--yes'])).error.message).toBe('none');
}

/** A second VM, with this image as its disk. */
async function otherVm(file: string, format: 'raw' | 'qcow2'): Promise<BareQemu> {
  return await BareQemu.start(elsewhere, [{ name: 'other0', format, file }]);
}

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('a file that somebody needs', () => {
  const both = ['revert', 'delete'] as const;

  describe.each(both)('is not touched by %s:', (what) => {
    test('a foreign overlay lies on it', async () => {
      await cutAndShutOff();
      const above = await makeOn(overlay('data0'), at.folder.path('images/foreign.qcow2'));
      await expectRefused(what, `${above} names it as its backing file`);
    });

    test('a clone of another folder lies on it, which a set of another VM names', async () => {
      await cutAndShutOff();
      const above = await makeOn(overlay('data0'), elsewhere.path('clones/clone.qcow2'));
      const [disk] = manifest().disks;
      if (disk === undefined) throw new Error('no disk');
      const base = { ...disk.base, file: elsewhere.path('clones/other.raw') };
      const vm = { name: 'other', qmp: '/other', status: 'running', uuid: '01234567-89ab-cdef-0123-456789abcdef' };
      const other = { ...manifest(), vm, set: 's9', id: 'x', disks: [{ ...disk, base, overlay: { ...base } }] };
      mkdirSync(dirname(manifestFile('s9', 'other')), { recursive: true });
      writeFileSync(manifestFile('s9', 'other'), JSON.stringify(other));
      await expectRefused(what, `${above} names it as its backing file`);
    });

    test.each([
      ['by a relative name', (): string => basename(overlay('data0'))],
      ['by another link', (): string => hardLink()],
      [
        'by a json: name',
        (): string =>
          `json:${JSON.stringify({ driver: 'qcow2', file: { driver: 'file', filename: overlay('data0') } })}`,
      ],
      ['by a flat json: name', (): string => `json:{"driver":"qcow2","file.filename":"${overlay('data0')}"}`],
    ])('an image names it %s', async (_how, name) => {
      await cutAndShutOff();
      const above = await makeOn(name(), at.folder.path('images/above.qcow2'));
      await expectRefused(what, `${above} names it as its backing file`);
    });

    test('a newer set of the same VM, recorded under another name, lies on it', async () => {
      for (const { name } of disks) await at.vm.write(name, 1, 0, 64);
      expect((await at.create('s1')).error.message).toBe('none');
      for (const { name } of disks) await at.vm.write(name, 2, 0, 64);
      expect((await at.create('s2', '--vm', 'again')).error.message).toBe('none');
      await at.vm.quit();
      await expectRefused(what, 'newer snapshot sets lie on s1: ', 'E_NEWER_SETS');
    });

    test('another VM has it as its disk, which no monitor tells of', async () => {
      await cutAndShutOff();
      await using other = await otherVm(overlay('data0'), 'qcow2');
      await expectRefused(what, `is in use by qemu-system-x86 (process ${other.pid})`);
    });

    test('a QEMU that no process here belongs to has it below a disk of its own', async () => {
      await cutAndShutOff();
      await using other = await otherVm(await makeOn(overlay('data0'), elsewhere.path('far.qcow2')), 'qcow2');
      // As on another machine that shares the files: no process of the VM is seen, only its lock.
      const words = at.commandLine(['snapshot', what, 's1', '--yes']);
      const alone = ['--pid', '--fork', '--mount-proc', '--', process.execPath, HOST_TOOL, ...words];
      const { exitCode, stderr } = await execa('unshare', alone, { reject: false });
      expect(stderr, `by process ${other.pid}`).toMatch(/locked/);
      expect(exitCode).toBe(2);
      expect(await holdsPattern(overlay('data0'), 'qcow2', 2, 0, 64)).toBe(true);
    });

    test('a loop device is on it', async () => {
      await cutAndShutOff();
      const device = (await execa('losetup', ['--find', '--show', '--read-only', overlay('data0')])).stdout;
      try {
        await expectRefused(what, `it is loop device ${device}`);
      } finally {
        await execa('losetup', ['--detach', device]);
      }
    });

    test('a set of another VM cannot be read: what is not known counts as in use', async () => {
      await cutAndShutOff();
      mkdirSync(dirname(manifestFile('s9', 'other')), { recursive: true });
      writeFileSync(manifestFile('s9', 'other'), '{');
      const run = await expectRefused(what, 'whether it is in use is not known');
      expect(run.error.message).toContain(manifestFile('s9', 'other'));
    });

    test('and is done when nobody needs it any more', async () => {
      await cutAndShutOff();
      const above = await makeOn(overlay('data0'), at.folder.path('images/foreign.qcow2'));
      await expectRefused(what, above);
      await execa('rm', [above]);
      await expectDone(what);
      if (what === 'revert') expect(await holdsPattern(overlay('data0'), 'qcow2', 1, 0, 64)).toBe(true);
      else expect(existsSync(overlay('data0'))).toBe(false);
    });
  });

  test('is not deleted while a running VM has it under another spelling', async () => {
    expect((await at.create('s1')).code).toBe(0);
    const link = elsewhere.path('link.qcow2');
    symlinkSync(overlay('data0'), link);
    await at.restart([{ name: 'data0', format: 'qcow2', file: link }]);
    const run = await at.bridge(['snapshot', 'delete', 's1', '--yes']);
    expect(run).toMatchObject({ code: 2, error: { code: 'E_IN_USE' } });
    expect(run.error.message).toContain('has it in its block graph');
    expect(existsSync(overlay('data0'))).toBe(true);
  });

  test.each(['raw', 'qcow2'] as const)('is known by its lock, whatever its format (%s)', async (format) => {
    const file = elsewhere.path(`image.${format}`);
    await execa('qemu-img', ['create', '-q', '-f', format, file, '16M']);
    expect(await isLockedByQemu(file)).toBe(false);
    const before = readFileSync(file);
    {
      await using vm = await otherVm(file, format);
      expect(await isLockedByQemu(file), `by process ${vm.pid}`).toBe(true);
    }
    const above = elsewhere.path('above.qcow2');
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', file, '-F', format, above]);
    {
      await using vm = await otherVm(above, 'qcow2');
      expect(await isLockedByQemu(file), `by process ${vm.pid}`).toBe(true);
    }
    expect(await isLockedByQemu(file)).toBe(false);
    expect(readFileSync(file).equals(before)).toBe(true);
  });

  test('is one that an image has its data in', async () => {
    const data = elsewhere.path('data.raw');
    const image = elsewhere.path('image.qcow2');
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', `data_file=${data},data_file_raw=on`, image, '16M']);
    expect(await useOf(data, nobody)).toEqual({ is: 'used', by: `${image} has its data in it` });
    expect(await useOf(image, nobody)).toEqual({ is: 'free' });
  });

  describe('is none of the set any more:', () => {
    /** Two VMs whose disks have one name, and one folder for overlays. */
    async function sameName(): Promise<{ readonly other: BareQemu; readonly shared: string }> {
      const shared = elsewhere.path('overlays');
      mkdirSync(shared);
      const other = await BareQemu.start(elsewhere, [{ name: 'root0', format: 'raw' }]);
      return { other, shared };
    }
    const cutOther = (shared: string): Promise<Run> =>
      at.bridge([
        'snapshot',
        'create',
        '--name',
        's1',
        '--overlay-dir',
        shared,
        '--require',
        'crash',
        '--qmp',
        elsewhere.path('qmp.sock'),
        '--vm',
        'other',
      ]);

    test("delete of a committed set leaves another VM's overlay of the same name alone", async () => {
      const { other, shared } = await sameName();
      await using vm = other;
      expect((await at.create('s1', '--overlay-dir', shared)).error.message).toBe('none');
      expect((await at.bridge(['snapshot', 'commit', 's1'])).error.message).toBe('none');
      const made = await cutOther(shared);
      const file = made.manifest.disks[0]?.overlay.file ?? '';
      // They cannot meet: the set's id is in them.
      expect(file).not.toBe(manifest().disks[0]?.overlay.file);
      await vm.write('root0', 7, 0, 64);
      await vm.quit();
      const run = await at.bridge(['snapshot', 'delete', 's1']);
      expect(run).toMatchObject({ code: 0, json: { deleted: 's1', files: [] } });
      expect(await holdsPattern(file, 'qcow2', 7, 0, 64)).toBe(true);
    });

    test.each(['with what it was at the cut', 'as an older version recorded it'])(
      "delete of a set leaves the file alone that is another VM's by now (%s)",
      async (how) => {
        const { other, shared } = await sameName();
        await using vm = other;
        const mine = await at.create('s1', '--disk', 'root0', '--overlay-dir', shared);
        const file = mine.manifest.disks[0]?.overlay.file ?? '';
        await at.vm.quit();
        const inode = (await execa('stat', ['-c', '%i', file])).stdout;
        const device = (await execa('stat', ['-c', '%d', file])).stdout;
        // Somebody moved it away, and the name was free for the other VM.
        await execa('mv', [file, elsewhere.path('moved.qcow2')]);
        const made = await cutOther(shared);
        await vm.write('root0', 7, 0, 64);
        await vm.quit();
        await execa('mv', [made.manifest.disks[0]?.overlay.file ?? '', file]);
        const [disk] = manifest().disks;
        if (disk === undefined) throw new Error('no disk');
        const asCut = how.startsWith('with') ? { asCut: { device, inode, size: 1, mtimeMs: 1 } } : {};
        const { file: name, format } = disk.overlay;
        const old = { ...manifest(), disks: [{ ...disk, overlay: { file: name, format, ...asCut } }] };
        writeFileSync(manifestFile(), JSON.stringify(old));
        const run = await at.bridge(['snapshot', 'delete', 's1', '--yes']);
        expect(run).toMatchObject({ code: 0, json: { files: [], foreign: [file] } });
        expect(await holdsPattern(file, 'qcow2', 7, 0, 64)).toBe(true);
        expect(existsSync(manifestFile())).toBe(false);
      },
    );

    test('a reverted set still knows its own files', async () => {
      await cutAndShutOff();
      await expectDone('revert');
      const files = disks.map(({ name }) => overlay(name));
      const run = await at.bridge(['snapshot', 'delete', 's1', '--yes']);
      expect(run).toMatchObject({ code: 0, json: { files, foreign: [] } });
      expect(at.images()).toEqual(['data0.qcow2', 'root0.raw']);
    });
  });

  test('a delete that is refused has taken nothing out of QEMU', async () => {
    expect((await at.create('s1')).code).toBe(0);
    // The overlay of the first disk is open, and no disk's; the second one's VM goes on.
    await at.restart([{ name: 'data0', format: 'qcow2', file: overlay('data0') }]);
    const options = { driver: 'qcow2', 'node-name': 'spare', file: { driver: 'file', filename: overlay('root0') } };
    await at.vm.control.execute('blockdev-add', options);
    const nodes = async (): Promise<string[]> =>
      ((await at.vm.control.execute('query-named-block-nodes', { flat: true })) as { 'node-name': string }[]).map(
        (node) => node['node-name'],
      );
    expect(await nodes()).toContain('spare');
    const run = await at.bridge(['snapshot', 'delete', 's1', '--yes']);
    expect(run).toMatchObject({ code: 2, error: { code: 'E_IN_USE' } });
    expect(await nodes()).toContain('spare');
    await at.vm.control.execute('blockdev-del', { 'node-name': 'spare' });
  });

  test('a set of which a disk is merged is not reverted', async () => {
    for (const { name } of disks) await at.vm.write(name, 1, 0, 64);
    expect((await at.create('s1')).code).toBe(0);
    expect((await at.bridge(['snapshot', 'commit', 's1', '--disk', 'data0'])).error.message).toBe('none');
    await at.vm.quit();
    const run = await at.bridge(['snapshot', 'revert', 's1', '--yes']);
    expect(run).toMatchObject({ code: 2, error: { code: 'E_STATE_OF_SET' } });
    expect(run.error.message).toContain('disk data0: its overlay is merged back');
  });
});

/** The overlay of data0, by a name in another folder. */
function hardLink(): string {
  const link = at.folder.path('same.qcow2');
  linkSync(overlay('data0'), link);
  return link;
}
