// What `show` and `list` say of a set while things happen to its VM and its images: worth, whether the cut is still there,
// and which image is the newest.
import { execa } from 'execa';
import { readFileSync, readdirSync, readlinkSync, renameSync, utimesSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { ConsistencyLevel } from '../../src/consistency.js';
import type { CreateCheck } from '../../src/host/create/create-check.js';
import type { DiskView } from '../../src/host/sets/set-view.js';
import { holdsPattern, imagePath, type BareDisk } from '../support/bare-qemu.js';
import { CutHarness, type Run } from '../support/cut-harness.js';
import { StepProxy } from '../support/lossy-proxy.js';
import { requires } from '../support/requires.js';

const root: BareDisk = { name: 'root0', format: 'raw' };
const data: BareDisk = { name: 'data0', format: 'qcow2' };
const disks: readonly BareDisk[] = [root, data];
let at: CutHarness;
beforeEach(async () => {
  at = await CutHarness.start(disks);
});
afterEach(async () => {
  await at[Symbol.asyncDispose]();
});

const base = (disk: BareDisk): string => imagePath(at.folder, disk);
const commit = ['snapshot', 'commit', 's1'] as const;

interface Shown extends Run {
  readonly level: ConsistencyLevel;
  readonly disks: readonly DiskView[];
  readonly notes: readonly string[];
}

async function show(): Promise<Shown> {
  const run = await at.bridge(['snapshot', 'show', 's1']);
  expect(run.error.message).toBe('none');
  return { ...run, ...(run.json as unknown as Pick<Shown, 'level' | 'disks' | 'notes'>) };
}

/** `start-args` for people. */
async function printed(): Promise<{ stdout: string }> {
  const { code, stdout } = await at.printed('snapshot', 'start-args');
  expect(code).toBe(0);
  return { stdout };
}

async function listedLevel(): Promise<unknown> {
  const { json } = await at.bridge(['snapshot', 'list']);
  return (json['sets'] as { level: string }[])[0]?.level;
}

/** Cuts, and lets the guest write to both disks; gives the overlays' files. */
async function cutAndWrite(): Promise<readonly string[]> {
  for (const { name } of disks) await at.vm.write(name, 1, 0, 64);
  const { manifest } = await at.create('s1');
  for (const { name } of disks) {
    await at.vm.write(name, 2, 0, 64);
    await at.vm.flush(name);
  }
  return manifest.disks.map(({ overlay }) => overlay.file);
}

/** QEMU dies while its first disk is merged. */
async function dieInCommit(): Promise<void> {
  await using proxy = await StepProxy.listen(at.folder.path('proxy.sock'), at.vm.qmp, {
    command: 'block-commit',
    when: 'after',
  });
  const work = at.bridge([...commit, '--qmp', proxy.path]);
  await proxy.reached;
  // Its first bytes are merged.
  await expect.poll(() => holdsPattern(base(root), 'raw', 2, 0, 64)).toBe(true);
  await at.vm.kill();
  proxy.goOn();
  expect((await work).code).toBe(5);
}

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('a set', () => {
  test('that was cut is worth what was proved, and its overlays are the newest', async () => {
    const overlays = await cutAndWrite();
    const shown = await show();
    expect(shown.disks.map(({ holdsCut, newest, inUse }) => [holdsCut, newest?.file, inUse])).toEqual(
      overlays.map((file) => [true, file, 'overlay']),
    );
    expect(shown.level).toBe('filesystem');
    expect(shown.notes).toEqual([]);
    await at.vm.quit();
    const off = await show();
    expect(off.disks.map(({ holdsCut, newest }) => [holdsCut, newest?.file])).toEqual(
      overlays.map((file) => [true, file]),
    );
    expect(await listedLevel()).toBe('filesystem');
  });

  test('that was committed is worth nothing any more', async () => {
    await cutAndWrite();
    expect((await at.bridge(commit)).error.message).toBe('none');
    const shown = await show();
    expect(shown.level).toBe('none');
    expect(shown.disks.map(({ holdsCut, newest }) => [holdsCut, newest?.file])).toEqual(
      disks.map((disk) => [false, base(disk)]),
    );
    expect(await listedLevel()).toBe('none');
  });

  describe('of which QEMU died in a commit', () => {
    test('names the overlays as the newest while the VM is shut off', async () => {
      const overlays = await cutAndWrite();
      await dieInCommit();
      const shown = await show();
      expect(shown.level).toBe('none');
      expect(shown.disks.map(({ newest }) => newest?.file)).toEqual(overlays);
      expect(shown.notes.join()).toContain(`start the VM from ${overlays.join(', ')}, and commit s1 again`);
    });

    test('does not say that the base holds the cut when the VM was restarted on its old command line', async () => {
      const overlays = await cutAndWrite();
      await dieInCommit();
      await at.vm[Symbol.asyncDispose]();
      await at.start(disks);
      const shown = await show();
      expect(shown.disks[0]).toMatchObject({
        holdsCut: false,
        level: 'none',
        inUse: 'base',
        newest: { layer: 'overlay' },
      });
      expect(shown.disks[0]?.notes.join()).toContain('shut it off, and start it from');
      const told = await at.bridge(['recover']);
      expect(told.code).toBe(8);
      expect(told.stdout).toContain(`start the VM from ${overlays.join(', ')}, and commit s1 again`);
      // What it says is done.
      await at.restart(disks.map((disk, index) => ({ ...disk, format: 'qcow2', file: overlays[index] ?? '' })));
      expect((await at.bridge(['recover'])).code).toBe(0);
      // The merge of this disk was not begun: it was changed by the VM that had its base.
      expect((await at.bridge(commit)).error.message).toContain(`${base(data)} was changed after the cut`);
      expect((await at.bridge([...commit, '--yes'])).error.message).toBe('none');
      await at.vm.quit();
      for (const disk of disks) expect(await holdsPattern(base(disk), disk.format, 2, 0, 64)).toBe(true);
    });
  });

  test('whose base was written to while the VM was shut off says so', async () => {
    await cutAndWrite();
    await at.vm.quit();
    await execa('qemu-io', ['-f', 'raw', '-c', 'write -P 7 0 64k', base(root)]);
    const shown = await show();
    expect(shown.disks.map(({ holdsCut, level }) => [holdsCut, level])).toEqual([
      [false, 'none'],
      [true, 'filesystem'],
    ]);
    expect(shown.level).toBe('none');
    expect(shown.disks[0]?.notes.join()).toContain(`${base(root)} was changed after the cut`);
    expect(await listedLevel()).toBe('none');
    const { json } = await at.bridge(['recover']);
    expect(json['findings']).toMatchObject([{ kind: 'base-written', status: 'done' }]);
    expect((await at.bridge(['recover'])).json['findings']).toEqual([]);
  });

  test('whose base was copied back, times kept, still holds its cut', async () => {
    await cutAndWrite();
    await at.vm.quit();
    await execa('cp', ['--preserve=all', base(root), at.folder.path('images/copy')]);
    await execa('mv', [at.folder.path('images/copy'), base(root)]);
    expect((await show()).level).toBe('filesystem');
    utimesSync(base(root), new Date(), new Date());
    expect((await show()).level).toBe('none');
  });

  test('whose base is gone says so', async () => {
    await cutAndWrite();
    await at.vm.quit();
    await execa('rm', [base(root)]);
    expect((await show()).disks[0]?.notes).toEqual([`${base(root)} is not there: it was removed, or is not mounted`]);
  });

  test('whose VM was started from its bases, and wrote to both, leaves it to a person which is newer', async () => {
    const overlays = await cutAndWrite();
    await at.restart(disks);
    await at.vm.write('root0', 5, 0, 64);
    const shown = await show();
    expect(shown.disks[0]).toMatchObject({ holdsCut: false, inUse: 'base' });
    expect(shown.disks[0]?.newest).toBeUndefined();
    expect(shown.disks[0]?.notes.join()).toContain(overlays[0]);
    const { json } = await at.bridge(['status']);
    const { startedWrong } = json['monitor'] as { startedWrong: string[] };
    expect(startedWrong.map((line) => line.includes(base(root)))).toEqual([true, false]);
    expect(startedWrong[0]).toContain(overlays[0]);
  });

  describe('start-args', () => {
    const startArgs = async (): Promise<Run> => await at.bridge(['snapshot', 'start-args']);

    test('gives the overlays after a cut, the bases after a commit, and QEMU starts from them', async () => {
      expect((await startArgs()).json['disks']).toEqual([]);
      const overlays = await cutAndWrite();
      const cut = await startArgs();
      expect(cut.json['disks']).toMatchObject(overlays.map((file) => ({ image: { file, format: 'qcow2' } })));
      const words = /-blockdev (driver=qcow2,node-name=node-root0,\S+)/.exec((await printed()).stdout)?.[1] ?? '';
      const link = at.state('.images/root0');
      expect([readlinkSync(link), readFileSync(`${link}.format`, 'utf8')]).toEqual([overlays[0], 'qcow2\n']);
      await at.vm.quit();
      const { stdout } = await execa('qemu-img', [
        'info',
        '--output=json',
        '--image-opts',
        words.replace('node-name=node-root0,', ''),
      ]);
      expect(JSON.parse(stdout)).toMatchObject({ 'backing-filename': base(root) });
      await at.start(disks.map((disk, index) => ({ ...disk, format: 'qcow2', file: overlays[index] ?? '' })));
      expect((await at.bridge(commit)).error.message).toBe('none');
      expect((await startArgs()).json['disks']).toMatchObject(
        disks.map((disk) => ({ image: { file: base(disk), format: disk.format } })),
      );
      expect([readlinkSync(link), readFileSync(`${link}.format`, 'utf8')]).toEqual([base(root), 'raw\n']);
    });

    test('has links that a script reads: a VM started from the link itself is not cut, and loses nothing', async () => {
      const overlays = await cutAndWrite();
      const [link, other] = [at.state('.images/root0'), at.state('.images/data0')];
      const started = (first: string, second: string): BareDisk[] => [
        { ...root, format: 'qcow2', file: first },
        { ...data, format: 'qcow2', file: second },
      ];
      await at.restart(started(link, overlays[1] ?? ''));
      const check = await at.bridge(['snapshot', 'create', '--check']);
      expect((check.json as unknown as CreateCheck).missing[0]?.reason).toContain(`"readlink ${link}" says`);
      const named = await at.bridge(['snapshot', 'create', '--name', 's2', '--disk', 'root0']);
      expect(named).toMatchObject({ code: 2, error: { code: 'E_DISK' } });
      // What is in the folder and no link is somebody's.
      const image = at.state('.images/image.qcow2');
      writeFileSync(image, 'image');
      expect((await at.bridge(commit)).error.message).toBe('none');
      expect(readFileSync(image, 'utf8')).toBe('image');
      expect([readlinkSync(link), readlinkSync(other)]).toEqual([base(root), base(data)]);
    });

    test('keeps the links when the last set is deleted: they lead to the bases', async () => {
      await cutAndWrite();
      const link = at.state('.images/root0');
      expect((await at.bridge(commit)).error.message).toBe('none');
      expect((await at.bridge(['snapshot', 'delete', 's1'])).error.message).toBe('none');
      expect([readlinkSync(link), readFileSync(`${link}.format`, 'utf8')]).toEqual([base(root), 'raw\n']);
      await cutAndWrite();
      await at.vm.quit();
      expect((await at.bridge(['snapshot', 'delete', 's1', '--yes'])).error.message).toBe('none');
      expect([readlinkSync(link), readFileSync(`${link}.format`, 'utf8')]).toEqual([base(root), 'raw\n']);
    });

    test('gives node names that QEMU takes, and links, to disks that nobody named', async () => {
      const plain = imagePath(at.folder, { name: 'plain', format: 'raw' });
      await execa('qemu-img', ['create', '-q', '-f', 'raw', plain, '16M']);
      await at.restart([], ['-drive', `file=${plain},format=raw,if=virtio`]);
      expect((await at.create('s1', '--require', 'crash')).error.message).toBe('none');
      const [line = ''] = (await printed()).stdout.split('\n');
      const words = /-blockdev (\S+)/.exec(line)?.[1] ?? '';
      const { file } = (await at.bridge(['snapshot', 'show', 's1'])).manifest.disks[0]?.overlay ?? {};
      expect(readdirSync(at.state('.images')).filter((name) => !name.endsWith('.format'))).toHaveLength(1);
      await at.vm.quit();
      await at.start([], ['-blockdev', words]);
      const nodes = (await at.vm.control.execute('query-named-block-nodes')) as { image: { filename: string } }[];
      expect(nodes.map(({ image }) => image.filename)).toContain(file);
    });

    test('leaves out no disk whose image is not there', async () => {
      await cutAndWrite();
      expect((await at.bridge(commit)).error.message).toBe('none');
      await at.vm.quit();
      renameSync(base(data), `${base(data)}.away`);
      const refused = await startArgs();
      expect(refused).toMatchObject({ code: 2, error: { code: 'E_NO_IMAGE' } });
      expect(refused.error.message).toContain(`${base(data)} is not there`);
      renameSync(`${base(data)}.away`, base(data));
      expect((await startArgs()).json['disks']).toHaveLength(2);
    });

    test('names no image where only a person can tell which is the newest', async () => {
      await cutAndWrite();
      await at.restart(disks);
      await at.vm.write('root0', 5, 0, 64);
      expect(await startArgs()).toMatchObject({ code: 2, error: { code: 'E_NEWEST_UNKNOWN' } });
    });
  });
});
