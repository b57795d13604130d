// Cuts of a real QEMU: real transactions, commits and failures. The guest is none, so its agent is a fixture that says
// what it is told to; that the level is true is shown in test/vm.
import { execa } from 'execa';
import { existsSync } from 'node:fs';
import { afterEach, expect, test } from 'vitest';
import { holdsPattern, holdsPatterns, imagePath, type BareDisk } from '../support/bare-qemu.js';
import { CutHarness, isOverlay, rootAndData } from '../support/cut-harness.js';
import { filesystemReport, freezeReport } from '../support/freeze-reports.js';
import { requires } from '../support/requires.js';

let at: CutHarness;
afterEach(async () => {
  await at[Symbol.asyncDispose]();
});

const two = rootAndData;
const many = (count: number): BareDisk[] =>
  Array.from({ length: count }, (_, index) => ({ name: `disk${index}`, format: index % 2 === 0 ? 'raw' : 'qcow2' }));
const start = async (disks: readonly BareDisk[]): Promise<void> => {
  at = await CutHarness.start(disks);
};

/** What takes more than two seconds on a busy machine is told of, and nothing else. */
const PROGRESS = /^(merging disk \w+: .*\n)*$/;

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('a cut of a real QEMU', () => {
  test('cuts raw and qcow2 in one transaction, the only command between freeze and thaw', async () => {
    await start(two);
    await at.vm.write('root0', 1, 0, 64);
    const run = await at.create('s1');
    expect(run.stderr).toBe('');
    expect(run.code).toBe(0);
    const { manifest } = run;
    expect(manifest).toMatchObject({ state: 'cut', level: 'filesystem', required: 'filesystem' });
    expect(manifest.disks.map(({ serial, level }) => [serial, level])).toEqual([
      ['root0', 'filesystem'],
      ['data0', 'filesystem'],
    ]);
    const { freezeRequestedMs = 0, thawAnsweredMs = 0 } = manifest.timings.marks;
    const between = manifest.monitorLog.filter(({ sentMs }) => sentMs >= freezeRequestedMs && sentMs <= thawAnsweredMs);
    expect(between.map(({ command }) => command)).toEqual(['transaction']);
    expect(at.agent.commands.filter((name) => name.startsWith('bridge-'))).toEqual([
      'bridge-status',
      'bridge-freeze',
      'bridge-thaw',
    ]);
    expect(at.agent.log.find(({ command }) => command === 'bridge-freeze')?.args['disks']).toMatchObject([
      { serial: 'root0' },
      { serial: 'data0' },
    ]);
    expect(await at.filesInUse()).toEqual([at.overlay('root0'), at.overlay('data0')]);

    await at.vm.write('root0', 2, 0, 64);
    await at.vm.quit();
    // The base holds the cut; the overlay holds what came after, and knows its base.
    expect(await holdsPattern(at.folder.path('images/root0.raw'), 'raw', 1, 0, 64)).toBe(true);
    expect(await holdsPattern(at.overlay('root0'), 'qcow2', 2, 0, 64)).toBe(true);
  });

  test('tells the guest when the set is recorded, and only warns if that fails', async () => {
    await start(two);
    const writer = { name: '50-db', path: '/w', told: 'ok', result: 'failed', reason: 'exit 1: full', durationMs: 3 };
    at.agent.completion = { writers: [writer] };
    const told = await at.create('s1');
    expect(told.code).toBe(0);
    expect(told.stderr).toBe(
      'fsfreeze-bridge: writer 50-db failed when it was told that the set is recorded: exit 1: full\n',
    );
    expect(told.manifest).toMatchObject({ state: 'cut', completion: { outcome: 'ok', writers: [writer] } });
    expect(at.manifest().completion).toEqual(told.manifest.completion);
    const asked = at.agent.log.findLast(({ command }) => command === 'bridge-complete');
    expect(asked?.args).toEqual({ session: told.manifest.guest?.session, outcome: 'ok' });
    expect(asked?.atMs).toBeGreaterThan(told.manifest.timings.marks.thawAnsweredMs ?? Infinity);

    at.agent.completion = new Error('no session to complete');
    const refused = await at.create('s2');
    expect(refused.code).toBe(0);
    expect(refused.stderr).toBe('fsfreeze-bridge: telling the guest failed: no session to complete\n');
    expect(at.manifest('s2')).toMatchObject({
      state: 'cut',
      level: 'filesystem',
      completion: { outcome: 'ok', writers: [], error: 'telling the guest failed: no session to complete' },
    });
  });

  test('an overlay is found whole after QEMU was killed', async () => {
    await start(two);
    await at.vm.write('data0', 1, 64, 64);
    expect((await at.create('s1')).code).toBe(0);
    await at.vm.write('data0', 2, 0, 64);
    await at.vm.flush('data0');
    await at.vm.kill();
    const overlay = at.overlay('data0');
    expect(await holdsPattern(overlay, 'qcow2', 2, 0, 64)).toBe(true);
    expect(await holdsPattern(overlay, 'qcow2', 1, 64, 64)).toBe(true);
  });

  test('takes eight disks at once', async () => {
    await start(many(8));
    const run = await at.create('s1');
    expect(run.code).toBe(0);
    expect(run.manifest.disks).toHaveLength(8);
    expect(run.manifest.timings.cutMs).toBeLessThan(1000);
    expect((await at.filesInUse()).every((file) => isOverlay(file, 's1'))).toBe(true);
  });

  test('cuts below a throttle filter and finds disks behind a PCIe port', async () => {
    const disks: readonly BareDisk[] = [
      { name: 'slow', format: 'qcow2', throttled: true, serial: '', behindPort: true },
    ];
    await start(disks);
    at.agent.report = freezeReport({ filesystems: [filesystemReport('/slow', 'other')] });
    const run = await at.create('s1');
    const { manifest } = run;
    expect(manifest.disks[0]?.base.node).toBe('node-slow');
    // The firmware never ran, so the port has no bus number and the disk no identity: all of the guest's filesystems count.
    expect(manifest.disks[0]?.pciAddress).toBeUndefined();
    expect(at.agent.log.find(({ command }) => command === 'bridge-freeze')?.args).not.toHaveProperty('disks');
    expect(run.code).toBe(0);
    const commit = await at.bridge(['snapshot', 'commit', 's1']);
    expect(commit.code).toBe(0);
    expect(await at.ourNodes()).toEqual([]);
  });

  test('cuts a raw disk that has no format node, and merges it back', async () => {
    const disks: readonly BareDisk[] = [{ name: 'data0', format: 'raw', unlayered: true }];
    await start(disks);
    await at.vm.write('data0', 1, 0, 64);
    for (const [index, name] of ['s1', 's2'].entries()) {
      const { code, stderr, manifest } = await at.create(name);
      expect(stderr).toBe('');
      expect(code).toBe(0);
      if (index === 0) expect(manifest.disks[0]?.base).toMatchObject({ node: 'node-data0', format: 'raw' });
      await at.vm.write('data0', 2 + index, 64 * (index + 1), 64);
    }
    for (const name of ['s2', 's1']) {
      const { code, stderr } = await at.bridge(['snapshot', 'commit', name]);
      expect(stderr).toBe('');
      expect(code).toBe(0);
    }
    expect(await at.ourNodes()).toEqual([]);
    const [disk] = disks;
    if (disk === undefined) throw new Error('no disk');
    const base = imagePath(at.folder, disk);
    expect(await at.filesInUse()).toEqual([base]);
    await at.vm.quit();
    for (const [index, pattern] of [1, 2, 3].entries())
      expect(await holdsPattern(base, 'raw', pattern, 64 * index, 64)).toBe(true);
  });

  test('creates and commits three times while the guest writes, and loses nothing', async () => {
    await start(two);
    let written = 0;
    const stop = new AbortController();
    const load = (async () => {
      while (!stop.signal.aborted) {
        await at.vm.write('data0', (written % 250) + 1, written % 200, 1);
        written++;
      }
    })();
    for (const name of ['a', 'b', 'c']) {
      expect((await at.create(name)).code).toBe(0);
      const before = written;
      while (written < before + 20) await new Promise((resolve) => setTimeout(resolve, 5));
      const commit = await at.bridge(['snapshot', 'commit', name]);
      expect(commit.stderr).toMatch(PROGRESS);
      expect(commit.code).toBe(0);
      expect(commit.manifest).toMatchObject({ state: 'committed' });
    }
    stop.abort();
    await load;
    expect(await at.filesInUse()).toEqual(two.map((disk) => imagePath(at.folder, disk)));
    expect(at.images()).toEqual(['data0.qcow2', 'root0.raw']);
    expect(await at.ourNodes()).toEqual([]);
    await at.vm.quit();
    const last = Array.from({ length: Math.min(200, written) }, (_, index) => written - 1 - index).map((index) => ({
      pattern: (index % 250) + 1,
      offsetKilobytes: index % 200,
      kilobytes: 1,
    }));
    expect(await holdsPatterns(at.folder.path('images/data0.qcow2'), 'qcow2', last)).toBe(true);
    expect((await execa('qemu-img', ['check', at.folder.path('images/data0.qcow2')])).exitCode).toBe(0);
  });

  test('stacks sets, refuses to commit a lower one, and tells who lies above', async () => {
    await start(two);
    expect((await at.create('low')).code).toBe(0);
    expect((await at.create('high')).code).toBe(0);
    const refused = await at.bridge(['snapshot', 'commit', 'low']);
    expect(refused.code).toBe(2);
    expect(refused.error.message).toContain('commit high first');
    expect((await at.bridge(['snapshot', 'delete', 'high', '--yes'])).code).toBe(2);
    expect((await at.bridge(['snapshot', 'commit', 'high'])).code).toBe(0);
    expect((await at.bridge(['snapshot', 'commit', 'low'])).code).toBe(0);
    expect(at.images()).toEqual(['data0.qcow2', 'root0.raw']);
  });

  test('rolls everything back if one disk cannot be cut, and thaws first', async () => {
    await start(two);
    at.agent.onFreeze = async () => {
      const second = (await at.ourNodes()).find((name) => name.endsWith('-1'));
      await at.vm.control.execute('blockdev-del', { 'node-name': second });
    };
    const run = await at.create('s1');
    expect(run.code).toBe(5);
    expect(run.error).toMatchObject({ code: 'E_CUT' });
    expect(run.error.message).toContain('the cut of 2 disks failed');
    expect(at.agent.frozen).toBe(false);
    expect(await at.filesInUse()).toEqual(two.map((disk) => imagePath(at.folder, disk)));
    expect(await at.ourNodes()).toEqual([]);
    expect(at.images()).toEqual(['data0.qcow2', 'root0.raw']);
    expect(existsSync(at.state('s1'))).toBe(false);
  });

  test('says so if something of a failed cut cannot be removed', async () => {
    await start(two);
    at.agent.onFreeze = async () => {
      const second = (await at.ourNodes()).find((name) => name.endsWith('-1'));
      const addr = { type: 'unix', data: { path: at.folder.path('nbd.sock') } };
      await at.vm.control.execute('nbd-server-start', { addr });
      await at.vm.control.execute('block-export-add', { type: 'nbd', id: 'e', 'node-name': second, writable: true });
    };
    const run = await at.create('s1');
    expect(run.code).toBe(5);
    expect(run.error).toMatchObject({ code: 'E_UNDO' });
    expect(run.error.message).toContain('could not undo: block node fsb-');
    expect(at.agent.frozen).toBe(false);
    expect(await at.filesInUse()).toEqual(two.map((disk) => imagePath(at.folder, disk)));
  });

  test('goes on with a commit that was interrupted, and with one whose tool was killed', async () => {
    await start(two);
    expect((await at.create('s1')).code).toBe(0);
    await at.vm.write('data0', 3, 0, 4096);
    const controller = new AbortController();
    const work = at.bridge(['snapshot', 'commit', 's1', '--speed', '1'], controller.signal);
    const ids = async (): Promise<string> => JSON.stringify(await at.vm.control.execute('query-jobs'));
    await expect.poll(ids, { timeout: 20_000 }).toMatch(/fsb-commit-[0-9a-f]+-1/);
    controller.abort('SIGTERM');
    const interrupted = await work;
    expect(interrupted).toMatchObject({ code: 5, error: { code: 'E_INTERRUPTED' } });
    expect(await at.vm.control.execute('query-jobs')).toEqual([]);
    // The first disk had nothing to merge; the second goes on as it was.
    expect(await at.filesInUse()).toEqual([at.folder.path('images/root0.raw'), at.overlay('data0')]);
    expect((await at.bridge(['snapshot', 'show', 's1'])).manifest.state).toBe('committing');

    const child = at.spawn(['snapshot', 'commit', 's1', '--speed', '1']);
    const jobs = async (): Promise<unknown[]> => await at.jobs();
    while ((await jobs()).length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
    child.kill('SIGKILL');
    await child;
    expect(await jobs()).toHaveLength(1);
    expect(await at.bridge(['snapshot', 'commit', 's1'])).toMatchObject({ code: 0, manifest: { state: 'committed' } });
    expect(await jobs()).toEqual([]);
    expect(at.images()).toEqual(['data0.qcow2', 'root0.raw']);
    await at.vm.quit();
    expect(await holdsPattern(at.folder.path('images/data0.qcow2'), 'qcow2', 3, 0, 4096)).toBe(true);
  });

  test('commits into the base after the VM was started anew from its overlays', async () => {
    await start(two);
    expect((await at.create('s1')).code).toBe(0);
    await at.vm.write('root0', 5, 0, 64);
    const overlays = await at.filesInUse();
    await at.restart(two.map(({ name }, index) => ({ name, format: 'qcow2', file: overlays[index] ?? '' })));
    const commit = await at.bridge(['snapshot', 'commit', 's1']);
    expect(commit.stderr).toMatch(PROGRESS);
    expect(commit).toMatchObject({ code: 0, manifest: { state: 'committed' } });
    expect(await at.filesInUse()).toEqual(two.map((disk) => imagePath(at.folder, disk)));
    await at.vm.quit();
    expect(await holdsPattern(at.folder.path('images/root0.raw'), 'raw', 5, 0, 64)).toBe(true);
  });

  test('does not commit an overlay that the VM was started without', async () => {
    await start(two);
    expect((await at.create('s1')).code).toBe(0);
    await at.restart(two.map((disk) => ({ ...disk, file: imagePath(at.folder, disk) })));
    const commit = await at.bridge(['snapshot', 'commit', 's1']);
    expect(commit).toMatchObject({ code: 2, error: { code: 'E_NOT_ACTIVE' } });
    expect(commit.error.message).toContain('the VM does not use it, but its base');
    expect(existsSync(at.overlay('root0')) && existsSync(at.overlay('data0'))).toBe(true);
  });
});
