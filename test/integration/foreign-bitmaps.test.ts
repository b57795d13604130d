// Dirty bitmaps of backup programs: while a set's overlays are in use they are found where the guest writes, with all that
// was written since the last backup, and after a commit the base's own hold it.
import { execa } from 'execa';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { holdsPattern, type BareDisk } from '../support/bare-qemu.js';
import { CutHarness } from '../support/cut-harness.js';
import { requires } from '../support/requires.js';

const KIB = 1024;
const root: BareDisk = { name: 'root0', format: 'raw' };
const data: BareDisk = { name: 'data0', format: 'qcow2' };
const disks = [root, data];
let at: CutHarness;
beforeEach(async () => {
  at = await CutHarness.start(disks);
});
afterEach(async () => {
  await at[Symbol.asyncDispose]();
});

interface Bitmap {
  readonly name?: string;
  readonly kibibytes: number;
  readonly recording: boolean;
  readonly persistent: boolean;
  readonly granularity: number;
  readonly inconsistent?: boolean;
}

interface BitmapNode {
  readonly 'node-name': string;
  readonly 'dirty-bitmaps'?: readonly (Omit<Bitmap, 'kibibytes'> & { readonly count: number })[];
}

/** Those of a node that have a name, by name. */
async function bitmapsOf(node: string): Promise<Bitmap[]> {
  const nodes = (await at.vm.control.execute('query-named-block-nodes', { flat: true })) as BitmapNode[];
  const found = nodes.find((each) => each['node-name'] === node)?.['dirty-bitmaps'] ?? [];
  return found
    .filter(({ name }) => name !== undefined)
    .map(({ count, ...rest }) => ({ ...rest, kibibytes: count / KIB }))
    .sort((one, other) => (one.name ?? '').localeCompare(other.name ?? ''));
}

/** The node that the guest's disk uses. */
async function activeNode(disk: string): Promise<string> {
  const devices = (await at.vm.control.execute('query-block')) as {
    qdev: string;
    inserted: { 'node-name': string };
  }[];
  const device = devices.find(({ qdev }) => qdev.includes(`/${disk}/`));
  if (device === undefined) throw new Error(`no disk ${disk}`);
  return device.inserted['node-name'];
}

const add = async (node: string, name: string, more: object = {}): Promise<void> => {
  await at.vm.control.execute('block-dirty-bitmap-add', { node, name, ...more });
};
const create = async (): Promise<void> => {
  expect((await at.create('s1')).error.message).toBe('none');
};
const commit = async (...words: string[]): Promise<void> => {
  expect((await at.bridge(['snapshot', 'commit', 's1', ...words])).error.message).toBe('none');
};

/** A backup of the disk as it is now, into `file`; of what the bitmap says changed, if one is named. */
async function backUp(node: string, file: string, bitmap?: string): Promise<void> {
  const { control } = at.vm;
  const target = { driver: 'qcow2', 'node-name': 'target', file: { driver: 'file', filename: file } };
  await control.execute('blockdev-add', target);
  const sync = bitmap === undefined ? { sync: 'full' } : { sync: 'incremental', bitmap };
  await control.execute('blockdev-backup', { 'job-id': 'backup', device: node, target: 'target', ...sync });
  await expect.poll(async () => await control.execute('query-jobs')).toEqual([]);
  await control.execute('blockdev-del', { 'node-name': 'target' });
}

const ask = { recording: true, persistent: true, granularity: 64 * KIB };

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)("a backup program's dirty bitmap", () => {
  test('is on the overlay after the cut, with what was written before it, and goes on counting there', async () => {
    await add('node-data0', 'theirs', { persistent: true, granularity: 64 * KIB });
    await add('node-data0', 'fine', { granularity: 32 * KIB });
    await add('node-root0', 'theirs');
    for (const { name } of disks) await at.vm.write(name, 1, 0, 64);
    const run = await at.create('s1');
    expect(run.error.message).toBe('none');
    const { freezeRequestedMs = NaN, thawAnsweredMs = NaN } = run.manifest.timings.marks;
    const between = run.manifest.monitorLog.filter(
      ({ sentMs }) => sentMs >= freezeRequestedMs && sentMs <= thawAnsweredMs,
    );
    expect(between.map(({ command }) => command)).toEqual(['transaction']);
    for (const { name } of disks) await at.vm.write(name, 2, 1024, 64);
    expect(await bitmapsOf(await activeNode('data0'))).toMatchObject([
      { name: 'fine', recording: true, persistent: false, granularity: 32 * KIB, kibibytes: 128 },
      { name: 'theirs', ...ask, kibibytes: 128 },
    ]);
    expect(await bitmapsOf(await activeNode('root0'))).toMatchObject([
      { name: 'theirs', recording: true, persistent: false, kibibytes: 128 },
    ]);
    expect(await bitmapsOf('node-data0')).toMatchObject([
      { name: 'fine', kibibytes: 64 },
      { name: 'theirs', ...ask, kibibytes: 64 },
    ]);
    // It is stored in the overlay, and the VM is started from there.
    await at.restart(disks.map(({ name }) => ({ name, format: 'qcow2', file: at.overlay(name) })));
    await at.vm.write('data0', 3, 2048, 64);
    expect(await bitmapsOf(await activeNode('data0'))).toMatchObject([{ name: 'theirs', ...ask, kibibytes: 192 }]);
  });

  test('makes incremental backups that lack nothing, of the overlay and of the base after a commit', async () => {
    const [full, second, third] = ['full', 'second', 'third'].map((name) => at.folder.path(`${name}.qcow2`)) as [
      string,
      string,
      string,
    ];
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', full, '16M']);
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', full, '-F', 'qcow2', second]);
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', second, '-F', 'qcow2', third]);
    await at.vm.write('data0', 1, 0, 512);
    await add('node-data0', 'theirs', { persistent: true });
    await backUp('node-data0', full);
    await at.vm.write('data0', 2, 64, 64);
    await create();
    await at.vm.write('data0', 3, 128, 64);
    await backUp(await activeNode('data0'), second, 'theirs');
    for (const [pattern, from] of [
      [1, 0],
      [2, 64],
      [3, 128],
      [1, 192],
    ] as const) {
      expect(await holdsPattern(second, 'qcow2', pattern, from, 64), `at ${from} KiB`).toBe(true);
    }
    await at.vm.write('data0', 4, 192, 64);
    await commit();
    await at.vm.write('data0', 5, 256, 64);
    await backUp('node-data0', third, 'theirs');
    await at.vm.quit();
    const same = await execa('qemu-img', ['compare', third, at.folder.path('images/data0.qcow2')], { reject: false });
    expect(same.stdout).toContain('Images are identical');
  });

  test.each(['running', 'shut off'])('on the base keeps counting through cut and commit (%s)', async (how) => {
    await add('node-data0', 'theirs', { persistent: true, granularity: 64 * KIB });
    await at.vm.write('data0', 1, 0, 64);
    await create();
    expect(await bitmapsOf('node-data0')).toMatchObject([{ name: 'theirs', ...ask, kibibytes: 64 }]);
    await at.vm.write('data0', 2, 1024, 128);
    if (how === 'shut off') await at.vm.quit();
    await commit(...(how === 'shut off' ? ['--offline'] : []));
    if (how === 'running') {
      expect(await bitmapsOf('node-data0')).toMatchObject([{ name: 'theirs', ...ask, kibibytes: 192 }]);
      await at.vm.write('data0', 3, 2048, 64);
      await at.vm.quit();
    }
    await at.start(disks.map((disk) => ({ ...disk, file: at.folder.path(`images/${disk.name}.${disk.format}`) })));
    const [found, ...others] = await bitmapsOf('node-data0');
    expect(found).toMatchObject({ name: 'theirs', ...ask, kibibytes: how === 'running' ? 256 : 192 });
    expect(found?.inconsistent).toBe(undefined);
    expect(others).toEqual([]);
  });

  test('is whole after a commit, though QEMU was killed while it was on the overlay alone', async () => {
    await add('node-data0', 'theirs', { persistent: true, granularity: 64 * KIB });
    await at.vm.write('data0', 1, 0, 64);
    await create();
    await at.vm.write('data0', 2, 1024, 128);
    await at.vm.flush('data0');
    await at.vm.kill();
    await at.vm[Symbol.asyncDispose]();
    await at.start(disks.map(({ name }) => ({ name, format: 'qcow2', file: at.overlay(name) })));
    await commit();
    expect(await bitmapsOf(await activeNode('data0'))).toMatchObject([{ name: 'theirs', ...ask, kibibytes: 192 }]);
  });

  test.each(['running', 'shut off'])('on the base counts what a prune merges into it (%s)', async (how) => {
    await add('node-data0', 'theirs', { persistent: true, granularity: 64 * KIB });
    await create();
    await at.vm.write('data0', 2, 1024, 128);
    expect((await at.create('s2')).error.message).toBe('none');
    await at.vm.write('data0', 3, 2048, 64);
    const newest = (await at.filesInUse()).map((file, index) => ({
      name: disks[index]?.name ?? '',
      format: 'qcow2' as const,
      file,
    }));
    if (how === 'shut off') await at.vm.quit();
    expect((await at.bridge(['snapshot', 'prune', '--keep', '1', '--yes'])).error.message).toBe('none');
    if (how === 'shut off') await at.start(newest);
    expect(await bitmapsOf(await activeNode('data0'))).toMatchObject([{ name: 'theirs', ...ask, kibibytes: 192 }]);
    expect((await at.bridge(['snapshot', 'commit', 's2'])).error.message).toBe('none');
    expect(await bitmapsOf(await activeNode('data0'))).toMatchObject([{ name: 'theirs', ...ask, kibibytes: 192 }]);
  });

  describe('made on the overlay', () => {
    test('is on the base after a commit, with what it counted', async () => {
      await create();
      await at.vm.write('data0', 1, 0, 512);
      for (const { name } of disks) {
        await add(await activeNode(name), 'later', { persistent: true, granularity: 64 * KIB });
        await at.vm.write(name, 2, 1024, 64);
      }
      await commit();
      for (const { name } of disks) await at.vm.write(name, 3, 2048, 64);
      expect(await bitmapsOf('node-data0')).toMatchObject([{ name: 'later', ...ask, kibibytes: 128 }]);
      // A raw image stores none: QEMU's memory does, as long as it lasts.
      expect(await bitmapsOf('node-root0')).toMatchObject([
        { name: 'later', ...ask, persistent: false, kibibytes: 128 },
      ]);
    });

    test('leaves one of the same name on the base as it is', async () => {
      await add('node-data0', 'theirs', { persistent: true, granularity: 64 * KIB });
      await create();
      const overlay = await activeNode('data0');
      await at.vm.control.execute('block-dirty-bitmap-remove', { node: overlay, name: 'theirs' });
      await add(overlay, 'theirs', { granularity: 32 * KIB });
      await at.vm.write('data0', 1, 1024, 64);
      await commit();
      expect(await bitmapsOf('node-data0')).toMatchObject([{ name: 'theirs', ...ask, kibibytes: 64 }]);
    });
  });

  test('stays where it is, and keeps nothing from being cut, if it does not record', async () => {
    await add('node-data0', 'past', { persistent: true });
    await at.vm.write('data0', 1, 0, 64);
    await at.vm.control.execute('block-dirty-bitmap-disable', { node: 'node-data0', name: 'past' });
    await create();
    expect(await bitmapsOf(await activeNode('data0'))).toEqual([]);
    await at.vm.write('data0', 2, 1024, 64);
    await commit();
    expect(await bitmapsOf('node-data0')).toMatchObject([{ name: 'past', recording: false, kibibytes: 64 }]);
  });

  test('that its program reads just now stays on the base, which is said, and counts what a commit brings', async () => {
    const { control } = at.vm;
    await add('node-data0', 'theirs', { persistent: true, granularity: 64 * KIB });
    await at.vm.write('data0', 1, 0, 64);
    await control.execute('nbd-server-start', { addr: { type: 'unix', data: { path: at.folder.path('nbd.sock') } } });
    // Read through a node of its own, which nobody writes to, as a pull of a frozen state is.
    await control.execute('blockdev-add', {
      driver: 'raw',
      'node-name': 'view',
      file: 'node-data0',
      'read-only': true,
    });
    const bitmaps = [{ node: 'node-data0', name: 'theirs' }];
    await control.execute('block-export-add', { type: 'nbd', id: 'pull', 'node-name': 'view', bitmaps });
    const run = await at.create('s1');
    expect(run.error.message).toBe('none');
    const note = expect.stringContaining('dirty bitmap theirs of disk data0') as string;
    expect(run.json).toMatchObject({ level: 'filesystem', notes: [note] });
    expect(await bitmapsOf(await activeNode('data0'))).toEqual([]);
    await at.vm.write('data0', 2, 1024, 128);
    await control.execute('nbd-server-stop');
    await expect.poll(async () => await control.execute('query-block-exports')).toEqual([]);
    await control.execute('blockdev-del', { 'node-name': 'view' });
    await commit();
    expect(await bitmapsOf('node-data0')).toMatchObject([{ name: 'theirs', ...ask, kibibytes: 192 }]);
  });

  test('that is removed while the guest is held: nothing is cut, and the guest is thawed', async () => {
    await add('node-data0', 'theirs');
    const theirs = { node: 'node-data0', name: 'theirs' };
    at.agent.onFreeze = async () => {
      await at.vm.control.execute('block-dirty-bitmap-remove', theirs);
    };
    expect(await at.create('s1')).toMatchObject({ code: 5, error: { code: 'E_CUT' } });
    expect(await activeNode('data0')).toBe('node-data0');
    expect(await at.ourNodes()).toEqual([]);
    expect(at.images()).toEqual(['data0.qcow2', 'root0.raw']);
    expect(at.agent.frozen).toBe(false);
  });
});
