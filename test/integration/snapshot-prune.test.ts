// Old sets merged out of the way of a real QEMU, running and shut off, by a tool that is killed at every step: each set
// that is left holds exactly its cut at every moment, and the VM loses nothing that it wrote.
import { execa } from 'execa';
import { cpSync, existsSync, readFileSync, readdirSync } from 'node:fs';
import { basename } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { backingOf } from '../../src/host/images/references.js';
import { pruneSnapshots } from '../../src/host/prune/snapshot-prune.js';
import type { Manifest } from '../../src/host/sets/manifest.js';
import { ManifestStore } from '../../src/host/sets/manifest-store.js';
import { socketAt } from '../../src/host/vm/place.js';
import { holdsPattern, imagePath } from '../support/bare-qemu.js';
import { CutHarness, rootAndData, type Run } from '../support/cut-harness.js';
import { StepProxy, type Step } from '../support/lossy-proxy.js';
import { requires } from '../support/requires.js';
import { oneIn } from '../support/variants.js';

const disks = rootAndData;
const sets = ['s1', 's2', 's3'] as const;
let at: CutHarness;
beforeEach(async () => {
  at = await CutHarness.start(disks);
});
afterEach(async () => {
  await at[Symbol.asyncDispose]();
});

const prune = async (...words: string[]): Promise<Run> =>
  await at.bridge(['snapshot', 'prune', ...(words.includes('--keep') ? [] : ['--keep', '1']), '--yes', ...words]);
const manifestOf = (set: string): Manifest => at.manifest(set);
const setsThere = (): string[] => readdirSync(at.state()).filter((name) => /^s\d$/.test(name));
const isThere = (set: string): boolean => existsSync(at.state(`${set}/manifest.json`));
const jobs = async (): Promise<unknown[]> => await at.jobs();

/**
 * Cuts s1, s2, s3. At the cut of sN the guest has written N over what was at 0, and N at N * 64 KiB; 4 since the last. So
 * each cut differs from each other in two places.
 */
async function cutThree(): Promise<void> {
  for (const [index, set] of sets.entries()) {
    await write(index + 1);
    expect((await at.create(set)).error.message).toBe('none');
  }
  await write(4);
}

async function write(pattern: number): Promise<void> {
  for (const { name } of disks) {
    await at.vm.write(name, pattern, 0, 64);
    await at.vm.write(name, pattern, pattern * 64, 64);
    await at.vm.flush(name);
  }
}

/** As the manifest names them. */
const overlaysOf = (set: string): string[] => manifestOf(set).disks.map(({ overlay }) => overlay.file);
const imagesThere = (...given: string[]): void => {
  const files = [...disks.map((disk) => imagePath(at.folder, disk)), ...given.flatMap(overlaysOf)];
  expect(at.images()).toEqual(files.map((file) => basename(file)).sort());
};

/** The image over what its header names, without locks: while QEMU merges it lets nobody read a layer above. */
async function unlocked(file: string, format: string): Promise<object> {
  const below = format === 'raw' ? undefined : await backingOf(file);
  const backing = below === undefined ? null : await unlocked(below, below.endsWith('.raw') ? 'raw' : 'qcow2');
  return {
    driver: format,
    file: { driver: 'file', filename: file, locking: 'off' },
    ...(format === 'raw' ? {} : { backing }),
  };
}

/** That the image reads as the disk was when `count` was the last that was written. */
async function expectState(file: string, format: string, count: number): Promise<void> {
  const image = `json:${JSON.stringify(await unlocked(file, format))}`;
  const written = [1, 2, 3, 4].map((pattern) => [pattern <= count ? pattern : 0, pattern * 64]);
  const reads = [[count, 0], ...written].flatMap(([pattern, at]) => ['-c', `read -P ${pattern} ${at}k 64k`]);
  // One process for all: there are hundreds of images to look at.
  const { stdout, stderr, exitCode } = await execa('qemu-io', ['-r', ...reads, image], { reject: false });
  const differs = stdout.match(/Pattern verification failed.*/g);
  expect({ exitCode, differs, stderr }, `${file} as of ${count}`).toEqual({ exitCode: 0, differs: null, stderr: '' });
}

/** Every set that says it holds a cut does; by the names in its manifest. */
async function expectTrue(): Promise<void> {
  for (const [index, set] of sets.entries()) {
    if (!isThere(set) || manifestOf(set).state !== 'cut') continue;
    expect(manifestOf(set).level).not.toBe('none');
    for (const { base } of manifestOf(set).disks) await expectState(base.file, base.format, index + 1);
  }
}

/** s1 and s2 are gone with all that was theirs; s3 and the VM have lost nothing. */
async function expectPruned(run: Run): Promise<void> {
  expect(run.error.message).toBe('none');
  expect(run.code).toBe(0);
  expect(setsThere()).toEqual(['s3']);
  expect(readdirSync(at.state('s3'))).toEqual(['manifest.json']);
  imagesThere('s3');
  const { disks: left, level } = manifestOf('s3');
  expect(level).toBe('filesystem');
  expect(left.map(({ base }) => base.file)).toEqual(disks.map((disk) => imagePath(at.folder, disk)));
  expect(left.some(({ rebasing }) => rebasing)).toBe(false);
  await expectTrue();
  expect(await at.bridge(['recover'])).toMatchObject({ code: 0, json: { findings: [] } });
  await expectTrue();
  expect((await at.bridge(['snapshot', 'copy', 's3', at.folder.path('copy')])).error.message).toBe('none');
  for (const { name } of disks) await expectState(at.folder.path(`copy/${name}.qcow2`), 'qcow2', 3);
}

async function expectRunning(): Promise<void> {
  expect(await jobs()).toEqual([]);
  expect((await at.ourNodes()).filter((name) => !name.includes(manifestOf('s3').id))).toEqual([]);
  expect(await at.filesInUse()).toEqual(overlaysOf('s3'));
  expect((await at.bridge(['snapshot', 'commit', 's3'])).error.message).toBe('none');
  await at.vm.quit();
  for (const disk of disks) await expectState(imagePath(at.folder, disk), disk.format, 4);
}

async function restartFromOverlays(): Promise<void> {
  const files = overlaysOf('s3');
  await at.start(disks.map(({ name }, index) => ({ name, format: 'qcow2', file: files[index] ?? '' })));
}

/** A store that fails like a full disk, at its n-th write, and at all that follow. */
class FullStore extends ManifestStore {
  left: number;
  constructor(stateDir: string, vm: string, left: number) {
    super(stateDir, vm);
    this.left = left;
  }
  override async write(manifest: Manifest): Promise<Manifest> {
    if (this.left-- <= 0) throw new Error('no space left for manifests');
    return await super.write(manifest);
  }
}

async function endedBefore(count: number): Promise<void> {
  const ended = pruneSnapshots({
    store: new FullStore(at.folder.path('state'), basename(at.state()), count),
    stateDir: at.folder.path('state'),
    monitor: socketAt(at.folder.path('qmp.sock')),
    keep: 1,
    dryRun: false,
    monitorTimeoutMs: 5000,
    limitMs: 60_000,
    confirm: () => Promise.resolve(true),
    signal: new AbortController().signal,
    onProgress: () => undefined,
  });
  await expect(ended).rejects.toThrow(/no space left for manifests/);
}

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('snapshot prune', () => {
  test('merges the older sets while the VM runs; the newest keeps its cut', async () => {
    await cutThree();
    await expectPruned(await prune());
    await expectRunning();
  });

  test('does so of a VM that was started from its overlays', async () => {
    await cutThree();
    await at.vm.quit();
    await restartFromOverlays();
    await expectPruned(await prune());
    await expectRunning();
  });

  test('does so with the VM shut off', async () => {
    await cutThree();
    await at.vm.quit();
    await expectPruned(await prune());
    await restartFromOverlays();
    await expectRunning();
  });

  test('talks to no other VM that has its socket by now', async () => {
    await cutThree();
    const own = basename(at.state());
    await at.restart([], ['-uuid', '01234567-89ab-cdef-0123-456789abcdef']);
    const run = await at.tool('snapshot', 'prune', '--vm', own, '--keep', '1', '--yes');
    expect(run.error.message).toBe('none');
    expect(run.json).toMatchObject({ merged: ['s1', 's2'], kept: ['s3'] });
    await at.vm.quit();
    await expectTrue();
    imagesThere('s3');
  });

  test('keeps as many as it is told, and loses nothing that the guest writes meanwhile', async () => {
    await cutThree();
    const child = at.spawn(['snapshot', 'prune', '--keep', '2', '--yes']);
    for (let count = 0; count < 20; count++) await at.vm.write('data0', 7, 1024 + count, 1);
    expect((await child).exitCode).toBe(0);
    expect(setsThere().sort()).toEqual(['s2', 's3']);
    await expectTrue();
    await at.vm.quit();
    expect(await holdsPattern(overlaysOf('s3')[1] ?? '', 'qcow2', 7, 1024, 20)).toBe(true);
  });

  test('--dry-run and a declined question change nothing', async () => {
    await cutThree();
    const before = at.images();
    expect((await prune('--dry-run')).json).toEqual({
      dryRun: true,
      merged: ['s1', 's2'],
      forgotten: [],
      kept: ['s3'],
    });
    const declined = await at.bridge(['snapshot', 'prune', '--keep', '1']);
    expect(declined).toMatchObject({ code: 4, error: { code: 'E_DECLINED' } });
    expect((await prune('--older-than', '1')).json).toMatchObject({ merged: [], kept: ['s1', 's2', 's3'] });
    expect(at.images()).toEqual(before);
    expect(sets.map((set) => manifestOf(set).state)).toEqual(['cut', 'cut', 'cut']);
  });

  test('forgets sets that hold nothing any more', async () => {
    await cutThree();
    expect((await at.bridge(['snapshot', 'commit', 's3'])).error.message).toBe('none');
    expect((await prune()).json).toEqual({ dryRun: false, merged: ['s1'], forgotten: ['s3'], kept: ['s2'] });
    expect(setsThere()).toEqual(['s2']);
    imagesThere('s2');
  });

  test('gives back no cut to a kept set whose base a VM was started from and wrote to', async () => {
    await cutThree();
    const o2 = overlaysOf('s2');
    await at.restart(disks.map(({ name }, index) => ({ name, format: 'qcow2', file: o2[index] ?? '' })));
    await at.vm.write('root0', 9, 0, 64);
    await at.vm.quit();
    // "recover" has not looked yet.
    expect(manifestOf('s3').level).toBe('filesystem');
    expect((await prune()).error.message).toBe('none');
    expect(manifestOf('s3')).toMatchObject({ state: 'cut', level: 'none' });
    expect(manifestOf('s3').disks.map(({ level }) => level)).toEqual(['none', 'filesystem']);
    expect((await at.bridge(['snapshot', 'show', 's3'])).json).toMatchObject({ level: 'none' });
    const copied = await at.bridge(['snapshot', 'copy', 's3', at.folder.path('copy')]);
    expect(copied).toMatchObject({ code: 2, error: { code: 'E_BASE_LOST' } });
    expect(manifestOf('s3').disks[0]?.lost).toMatch(/root0\.s2-\S+ was changed after the cut/);
  });

  test('ended half-way, is no loss to a set two layers above', async () => {
    await cutThree();
    expect((await at.create('s4')).error.message).toBe('none');
    await at.vm.quit();
    // The base is written to, and no set is told.
    await endedBefore(4);
    expect(manifestOf('s1').disks[0]).not.toHaveProperty('pivoting');
    await at.bridge(['recover']);
    expect(manifestOf('s4').level).toBe('filesystem');
    expect((await prune()).error.message).toBe('none');
    expect((await at.bridge(['snapshot', 'show', 's4'])).json).toMatchObject({ level: 'filesystem' });
    for (const { base } of manifestOf('s4').disks) await expectState(base.file, base.format, 4);
  });

  // A prune has the same steps with each set and disk: of `before` and `after` each is done to half of them.
  const kills: readonly Step[] = [
    { command: 'block-commit', when: 'before' },
    { command: 'block-commit', when: 'after' },
    { command: 'human-monitor-command', when: 'after' },
    { command: 'human-monitor-command', when: 'before' },
    { command: 'job-finalize', when: 'before' },
    { command: 'job-finalize', when: 'after' },
    { command: 'job-dismiss', when: 'after' },
    { command: 'job-dismiss', when: 'before' },
    { command: 'blockdev-del', when: 'before' },
    { command: 'blockdev-del', when: 'after' },
    // The second set, the second disk.
    { command: 'job-finalize', nth: 4, when: 'after' },
  ];

  async function killedAt(step: Step): Promise<void> {
    await cutThree();
    await using proxy = await StepProxy.listen(at.folder.path('proxy.sock'), at.vm.qmp, step);
    const child = at.spawn(['snapshot', 'prune', '--keep', '1', '--yes', '--qmp', proxy.path]);
    await proxy.reached;
    child.kill('SIGKILL');
    await child;
    proxy.goOn();
  }

  test.each(oneIn(4, kills))(
    'killed $when $command, leaves every set true, recover lowers none, and the next prune goes on',
    async (step) => {
      await killedAt(step);
      await expectTrue();
      expect((await at.bridge(['recover'])).code).toBe(8);
      await expectTrue();
      await expectPruned(await prune());
      await expectRunning();
    },
  );

  test.each(oneIn(3, kills, 1))(
    'killed $when $command, with QEMU killed beside it, loses nothing, shut off or started again',
    async (step) => {
      await killedAt(step);
      await at.vm.kill();
      await expectTrue();
      for (const file of overlaysOf('s3')) await expectState(file, 'qcow2', 4);
      // Half of it shut off, which is told apart by the step; then it runs again.
      if (step.when === 'after') await restartFromOverlays();
      await expectPruned(await prune());
      if (step.when === 'before') await restartFromOverlays();
      await expectRunning();
    },
  );

  // Every write for the first disk of the first set, and the one that ends it.
  const writes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 15] as const;
  test.each([
    ...oneIn(4, writes).map((count) => ['running', count] as const),
    ...oneIn(4, writes, 3).map((count) => ['shut off', count] as const),
  ])('of a VM that is %s, ended before its write no. %i of a manifest, goes on', async (how, count) => {
    await cutThree();
    if (how === 'shut off') await at.vm.quit();
    await endedBefore(count);
    await expectTrue();
    await at.bridge(['recover']);
    await expectTrue();
    await expectPruned(await prune());
  });

  test('interrupted while it copies, ends with 5 and says so; the next one goes on', async () => {
    for (const { name } of disks) await at.vm.write(name, 1, 0, 64);
    expect((await at.create('s1')).code).toBe(0);
    for (const { name } of disks) await at.vm.write(name, 2, 0, 8192);
    expect((await at.create('s2')).code).toBe(0);
    const child = at.spawn(['snapshot', 'prune', '--keep', '1', '--yes', '--speed', '1']);
    await expect.poll(jobs, { timeout: 10_000 }).toHaveLength(1);
    if (child.pid !== undefined) process.kill(child.pid, 'SIGTERM');
    const { exitCode, stderr } = await child;
    expect(stderr).toContain('interrupted: s1 is merged in part; prune again');
    expect(exitCode).toBe(5);
    expect(await jobs()).toEqual([]);
    expect((await prune()).error.message).toBe('none');
    await at.vm.quit();
    for (const disk of disks)
      expect(await holdsPattern(imagePath(at.folder, disk), disk.format, 2, 0, 8192)).toBe(true);
  });

  test('does not change over once the VM is on its way to another machine', async () => {
    await cutThree();
    // Asked: before the flush, when all of the first layer is copied.
    const step = { command: 'human-monitor-command', when: 'before' } as const;
    await using proxy = await StepProxy.listen(at.folder.path('proxy.sock'), at.vm.qmp, step);
    const work = prune('--qmp', proxy.path);
    await proxy.reached;
    await at.vm.beginMigration();
    proxy.goOn();
    const run = await work;
    expect(run).toMatchObject({ code: 5, error: { code: 'E_PRUNE' } });
    expect(run.error.message).toContain('the VM is being migrated or saved (active)');
    expect(await jobs()).toEqual([]);
    for (const [index, file] of overlaysOf('s2').entries()) {
      expect(await backingOf(file)).toBe(overlaysOf('s1')[index]);
    }
    await at.vm.cancelMigration();
    expect((await prune()).error.message).toBe('none');
    await at.vm.quit();
    for (const file of overlaysOf('s3')) await expectState(file, 'qcow2', 4);
  });

  test('killed while qemu-img merges, the VM shut off, waits for it, and goes on', async () => {
    await at.vm.write('data0', 1, 0, 64);
    for (const set of ['s1', 's2']) {
      expect((await at.create(set)).code).toBe(0);
      for (const { name } of disks) await at.vm.write(name, 2, 0, 8192);
    }
    await at.vm.quit();
    const child = at.spawn(['snapshot', 'prune', '--keep', '1', '--yes', '--speed', '2']);
    await expect.poll(() => isThere('s1') && manifestOf('s1').state).toBe('committing');
    await new Promise((resolve) => setTimeout(resolve, 300));
    child.kill('SIGKILL');
    await child;
    expect((await prune()).error.message).toMatch(/is in use by qemu-img/);
    await at.leftQemuImgEnded();
    expect((await prune()).error.message).toBe('none');
    expect(await holdsPattern(at.folder.path('images/data0.qcow2'), 'qcow2', 2, 0, 8192)).toBe(true);
  });

  describe('refuses, and changes nothing:', () => {
    async function expectRefused(code: string, message: RegExp, ...words: string[]): Promise<void> {
      const images = at.images();
      const refused = await prune(...words);
      expect(refused.error.message).toMatch(message);
      // Right as it was asked for, and possible later.
      expect(refused).toMatchObject({ code: code === 'E_VM_STATE' ? 5 : 2, error: { code } });
      expect(at.images()).toEqual(images);
      for (const set of sets) expect(manifestOf(set).state).toBe('cut');
    }

    test.each(['running', 'shut off'])('a linked clone beside the base of a VM that is %s', async (how) => {
      await cutThree();
      const args = ['create', '-q', '-u', '-f', 'qcow2', '-F', 'raw', '-b', at.folder.path('images/root0.raw')];
      await execa('qemu-img', [...args, at.folder.path('images/clone.qcow2'), '16M']);
      if (how === 'shut off') await at.vm.quit();
      await expectRefused('E_IN_USE', /clone\.qcow2 names it as its backing file/);
    });

    test.each(['running', 'shut off'])('a process that reads the base of a VM that is %s', async (how) => {
      await cutThree();
      if (how === 'shut off') await at.vm.quit();
      const file = at.folder.path('images/root0.raw');
      const reader = execa('sh', ['-c', 'exec sleep 60 <"$1"', 'sh', file], { reject: false });
      try {
        await expectRefused('E_IN_USE', /in use by sleep \(process \d+\)/);
      } finally {
        reader.kill();
        await reader;
      }
    });

    test('a set of another VM that needs a layer', async () => {
      await cutThree();
      cpSync(at.state(), at.folder.path('state/other'), { recursive: true });
      const file = at.folder.path('state/other/s2/manifest.json');
      const { id, vm } = manifestOf('s2');
      const uuid = '01234567-89ab-cdef-0123-456789abcdef';
      const other = readFileSync(file, 'utf8')
        .replaceAll(id, 'ffffffff')
        .replaceAll(vm.uuid ?? '', uuid);
      await execa('rm', ['-r', at.folder.path('state/other/s1'), at.folder.path('state/other/s3')]);
      await execa('tee', [file], { input: other, stdout: 'ignore' });
      await expectRefused('E_IN_USE', /snapshot set s2 of bare needs it/);
    });

    test.each(['running', 'shut off'])('a layer with an internal snapshot, of a VM that is %s', async (how) => {
      await cutThree();
      await at.vm.quit();
      await execa('qemu-img', ['snapshot', '-c', 'inner', overlaysOf('s1')[1] ?? '']);
      if (how === 'running') await restartFromOverlays();
      await expectRefused('E_INTERNAL_SNAPSHOTS', /disk data0: \S+data0\.s1-\S+ holds 1 internal snapshots/);
    });

    test('a copy that reads one of the sets', async () => {
      await cutThree();
      for (const { name } of disks) await at.vm.write(name, 5, 1024, 6144);
      expect((await at.create('s4')).code).toBe(0);
      const copying = at.spawn(['snapshot', 'copy', 's4', at.folder.path('copied'), '--speed', '1']);
      await expect.poll(() => existsSync(at.state('s4/copy.json')), { timeout: 10_000 }).toBe(true);
      await expectRefused('E_SET_BUSY', /s4 is being worked on by process \d+ \(copy, since /);
      expect((await copying).exitCode).toBe(0);
    });

    test('a VM that runs on its bases again, and one that wrote to them', async () => {
      await cutThree();
      await at.restart(disks.map((disk) => ({ ...disk, file: imagePath(at.folder, disk) })));
      await expectRefused('E_NOT_ACTIVE', /the VM does not run on/);
      await at.vm.write('root0', 9, 0, 64);
      await at.vm.quit();
      await expectRefused('E_BASE_LOST', /s1 was not pruned: \S+root0\.raw was changed after the cut/);
    });

    test('a disk that no newer set was cut of', async () => {
      await write(1);
      expect((await at.create('s1')).code).toBe(0);
      for (const set of ['s2', 's3']) expect((await at.create(set, '--disk', 'data0')).code).toBe(0);
      await expectRefused('E_NOT_BELOW', /no newer set lies on disk root0 of s1/);
    });

    test('a VM that is on its way to another machine', async () => {
      await cutThree();
      await at.vm.beginMigration();
      await expectRefused('E_VM_STATE', /the VM is being migrated or saved \(active\): nothing was pruned/);
      await at.vm.cancelMigration();
      expect((await prune()).error.message).toBe('none');
    });

    test('to keep none', async () => {
      await cutThree();
      await expectRefused('E_LIMIT', /expected 1 or more/, '--keep', '0');
    });
  });
});
