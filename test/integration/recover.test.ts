// The tool, or QEMU, killed at every step of what changes a set; then `recover`. Whatever was there, the guest is thawed,
// nothing that a VM uses or that holds data is gone, a second recover finds nothing, and the next cut succeeds.
import { execa } from 'execa';
import { existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Finding } from '../../src/host/recover/finding.js';
import type { Manifest } from '../../src/host/sets/manifest.js';
import { thisProcess } from '../../src/host/sets/owner.js';
import { holdsPattern, imagePath } from '../support/bare-qemu.js';
import { CutHarness, rootAndData, type Run } from '../support/cut-harness.js';
import { StepProxy, type Step } from '../support/lossy-proxy.js';
import { luksDisk } from '../support/luks.js';
import { requires } from '../support/requires.js';
import { oneIn } from '../support/variants.js';
import { HOST_TOOL } from '../../vm-images/demo/bridge.js';

const disks = rootAndData;
const originals = ['data0.qcow2', 'root0.raw'];
const create = ['snapshot', 'create', '--name', 's1'] as const;
const commit = ['snapshot', 'commit', 's1'] as const;
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
const findings = (run: Run): Finding[] => run.json['findings'] as Finding[];
const jobs = async (): Promise<unknown[]> => await at.jobs();

const killToolAt = async (words: readonly string[], step: Step): Promise<void> => {
  await at.killToolAt(words, step);
};

/** QEMU dies where the step is reached; the tool ends by itself, and says how. */
async function killQemuAt(words: readonly string[], step: Step): Promise<Run> {
  await using proxy = await StepProxy.listen(at.folder.path('proxy.sock'), at.vm.qmp, step);
  const work = at.bridge([...words, '--qmp', proxy.path]);
  await proxy.reached;
  // Whatever is held back by then ends with QEMU's connection: an answer of a dead QEMU must not arrive.
  await at.vm.kill();
  return await work;
}

/** Everything of the host that recover may change. */
function snapshotOfFiles(): unknown {
  const state = readdirSync(at.folder.path('state'), { recursive: true, withFileTypes: true });
  return {
    images: at.images().map((name) => [name, statSync(at.folder.path(`images/${name}`)).size]),
    state: state.map(({ name, parentPath }) => `${parentPath}/${name}`).sort(),
    manifest: existsSync(manifestFile()) ? manifest() : undefined,
  };
}

const recover = (...words: string[]): Promise<Run> => at.bridge(['recover', ...words]);

/** A dry run changes nothing; then it is put right, and a second time nothing is found. */
async function expectRecovered(): Promise<readonly Finding[]> {
  const before = snapshotOfFiles();
  const dry = await recover('--dry-run');
  expect(dry.stderr).not.toContain('fsfreeze-bridge:');
  expect(snapshotOfFiles()).toEqual(before);
  const run = await recover();
  expect(run.stderr).not.toContain('fsfreeze-bridge:');
  expect(findings(run).filter(({ status }) => status === 'failed')).toEqual([]);
  expect(run.code).toBe(0);
  expect(dry.code).toBe(findings(run).length === 0 ? 0 : 8);
  expect(at.agent.frozen).toBe(false);
  const again = await recover();
  expect(again).toMatchObject({ code: 0, json: { findings: [] } });
  return findings(run);
}

async function expectNothingLeft(): Promise<void> {
  expect(at.images()).toEqual(originals);
  expect(await at.ourNodes()).toEqual([]);
  expect(existsSync(at.state('s1'))).toBe(false);
  expect(await at.filesInUse()).toEqual(disks.map((disk) => imagePath(at.folder, disk)));
}

/** The set is known, worth crash, and can be merged with nothing lost. */
async function expectKept(): Promise<void> {
  expect(manifest()).toMatchObject({ state: 'cut', level: 'crash' });
  await at.vm.write('data0', 9, 0, 64);
  expect((await at.bridge(commit)).error.message).toBe('none');
  expect(at.images()).toEqual(originals);
}

async function expectNextCut(): Promise<void> {
  expect((await at.create('next')).error.message).toBe('none');
  expect((await at.bridge(['snapshot', 'commit', 'next'])).error.message).toBe('none');
  expect(at.images()).toEqual(originals);
  expect(await at.ourNodes()).toEqual([]);
}

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('recover', () => {
  const beforeCut: readonly [string, Step][] = [
    ['the first overlay is made', { command: 'blockdev-add', when: 'before' }],
    ['the first overlay is added', { command: 'blockdev-add', when: 'after' }],
    ['the second overlay is made', { command: 'blockdev-add', nth: 2, when: 'before' }],
    ['all overlays are added', { command: 'query-blockstats', when: 'before' }],
    ['the guest is held', { command: 'transaction', when: 'before' }],
  ];
  const afterCut: readonly [string, Step][] = [
    ['the disks are cut, and the answer is on its way', { command: 'transaction', when: 'after' }],
    ['the guest is thawed, and nothing is recorded', { command: 'query-blockstats', nth: 2, when: 'before' }],
  ];

  describe('after the tool was killed', () => {
    test.each(oneIn(2, beforeCut))('when %s: undoes it', async (_when, step) => {
      await killToolAt(create, step);
      expect(at.agent.frozen).toBe(step.command === 'transaction');
      expect((await expectRecovered()).length).toBeGreaterThan(0);
      await expectNothingLeft();
      await expectNextCut();
    });

    test.each(afterCut)('when %s: the set is kept', async (_when, step) => {
      await killToolAt(create, step);
      const found = await expectRecovered();
      expect(found.map(({ kind }) => kind)).toContain('set-unfinished');
      await expectKept();
      await expectNextCut();
    });

    test.each(['freeze', 'thaw'] as const)('when the %s was sent', async (which) => {
      const child = at.spawn(create);
      const kill = (): Promise<void> => {
        child.kill('SIGKILL');
        return new Promise((resolve) => setTimeout(resolve, 50));
      };
      if (which === 'freeze') at.agent.onFreeze = kill;
      else {
        at.agent.onThaw = async () => {
          await kill();
          throw new Error('this thaw was lost');
        };
      }
      expect((await child).signal).toBe('SIGKILL');
      at.agent.onFreeze = at.agent.onThaw = () => undefined;
      expect(at.agent.frozen).toBe(true);
      const found = await expectRecovered();
      expect(found[0]).toMatchObject({ kind: 'guest-held', status: 'done', set: 's1' });
      if (which === 'freeze') await expectNothingLeft();
      else await expectKept();
      await expectNextCut();
    });

    test('before it made anything', async () => {
      mkdirSync(at.state('s1'), { recursive: true });
      const owner = { ...(await thisProcess()), bootId: 'another boot' };
      const entry = { format: 1, operation: 'create', since: 'then', owner };
      writeFileSync(at.state('s1/journal.json'), JSON.stringify(entry));
      mkdirSync(at.state('.s2.4194304.0123abcd.claim'));
      writeFileSync(at.state('s1/manifest.json.4194304.tmp'), '{');
      await expectRecovered();
      await expectNothingLeft();
      expect(readdirSync(at.state())).toEqual(['vm.json']);
    });

    test('after its manifest was final: only its journal is left', async () => {
      expect((await at.create('s1')).code).toBe(0);
      const entry = {
        format: 1,
        operation: 'create',
        since: 'then',
        owner: { ...(await thisProcess()), startTicks: '1' },
      };
      writeFileSync(at.state('s1/journal.json'), JSON.stringify(entry));
      expect(await recover()).toMatchObject({ code: 0, json: { findings: [] } });
      expect(existsSync(at.state('s1/journal.json'))).toBe(false);
      expect(manifest()).toMatchObject({ state: 'cut', level: 'filesystem' });
    });
  });

  describe('after QEMU was killed', () => {
    test.each(oneIn(2, [...beforeCut, ...afterCut.slice(0, 1)], 1))(
      'when %s: its images are whole',
      async (_when, step) => {
        await at.vm.write('root0', 1, 0, 64);
        const run = await killQemuAt(create, step);
        expect([3, 5]).toContain(run.code);
        expect(at.agent.frozen).toBe(false);
        await expectRecovered();
        // Nothing was written after the cut, so that the images it was started with hold all there is.
        expect(at.images()).toEqual(originals);
        expect(await holdsPattern(at.folder.path('images/root0.raw'), 'raw', 1, 0, 64)).toBe(true);
        expect(existsSync(at.state('s1'))).toBe(false);
      },
    );

    test('and the tool as well, after the VM wrote to the overlays: says what to start the VM from', async () => {
      await at.vm.write('root0', 1, 0, 64);
      await killToolAt(create, { command: 'transaction', when: 'after' });
      await at.vm.write('root0', 2, 0, 64);
      await at.vm.flush('root0');
      await at.vm.kill();
      const [thawed, found] = await expectRecovered();
      expect(thawed).toMatchObject({ kind: 'guest-held', status: 'done' });
      expect(found?.did).toContain(`start the VM from ${overlay('root0')}, ${overlay('data0')}`);
      expect(manifest()).toMatchObject({ state: 'cut', level: 'crash' });
      expect(await holdsPattern(overlay('root0'), 'qcow2', 2, 0, 64)).toBe(true);
      expect(await holdsPattern(at.folder.path('images/root0.raw'), 'raw', 1, 0, 64)).toBe(true);
    });

    test('in the middle of a commit: says what to start the VM from, and goes on with it then', async () => {
      expect((await at.create('s1')).code).toBe(0);
      for (const { name } of disks) {
        await at.vm.write(name, 2, 0, 64);
        await at.vm.flush(name);
      }
      const run = await killQemuAt(commit, { command: 'block-commit', nth: 2, when: 'before' });
      expect(run.code).toBe(5);
      const told = await recover();
      expect(told).toMatchObject({ code: 8, json: { findings: [{ kind: 'set-commit', status: 'yours' }] } });
      const base = at.folder.path('images/root0.raw');
      expect(findings(told)[0]?.did).toContain(`start the VM from ${base}, ${overlay('data0')}`);
      const [root, data] = disks;
      if (root === undefined || data === undefined) throw new Error('no disks');
      await at.vm[Symbol.asyncDispose]();
      await at.start([
        { ...root, file: base },
        { ...data, file: overlay('data0') },
      ]);
      await expectRecovered();
      expect(manifest().state).toBe('committed');
      expect(at.images()).toEqual(originals);
      await at.vm.quit();
      for (const { name, format } of disks) {
        expect(await holdsPattern(at.folder.path(`images/${name}.${format}`), format, 2, 0, 64)).toBe(true);
      }
    });
  });

  test('after QEMU was killed when the VM was to change over: says which image was written last', async () => {
    await at.vm.write('root0', 1, 0, 64);
    expect((await at.create('s1')).code).toBe(0);
    await at.vm.write('root0', 2, 0, 64);
    await at.vm.flush('root0');
    expect((await killQemuAt(commit, { command: 'job-complete', when: 'after' })).code).toBe(5);
    expect(manifest().disks[0]).toMatchObject({ pivoting: true, merged: false });
    const off = await recover();
    expect(off).toMatchObject({ code: 8, json: { findings: [{ kind: 'set-commit', status: 'yours' }] } });
    expect(findings(off)[0]?.did).toContain('the one written last is the newer one');
    const base = at.folder.path('images/root0.raw');
    expect(await holdsPattern(base, 'raw', 2, 0, 64)).toBe(true);
    await at.vm[Symbol.asyncDispose]();
    await at.start([
      { name: 'root0', format: 'raw', file: base },
      { name: 'data0', format: 'qcow2', file: overlay('data0') },
    ]);
    const on = await recover();
    expect(on).toMatchObject({ code: 8, json: { findings: [{ kind: 'set-commit', status: 'yours' }] } });
    expect(findings(on)[0]?.did).toContain(`If ${base} is newer than ${overlay('root0')}, commit the set`);
    expect(existsSync(overlay('root0'))).toBe(true);
    // What it says is typed, and asked.
    expect(await at.bridge(commit)).toMatchObject({ code: 4, error: { code: 'E_DECLINED' } });
    expect((await at.bridge([...commit, '--yes'])).error.message).toBe('none');
    expect(at.images()).toEqual(originals);
    expect(await recover()).toMatchObject({ code: 0, json: { findings: [] } });
  });

  describe('after the tool was killed in a commit', () => {
    const kills: readonly [string, Step][] = [
      ['before the merge', { command: 'block-commit', when: 'before' }],
      ['while it merges', { command: 'block-commit', when: 'after' }],
      ['before the VM changes over', { command: 'job-complete', when: 'before' }],
      ['when the VM has changed over', { command: 'job-complete', when: 'after' }],
      ['before its job is dismissed', { command: 'job-dismiss', when: 'before' }],
      ['before the overlay leaves QEMU', { command: 'blockdev-del', when: 'before' }],
      ['when the overlay has left QEMU', { command: 'blockdev-del', when: 'after' }],
      ['between two disks', { command: 'block-commit', nth: 2, when: 'before' }],
    ];
    test.each(oneIn(3, kills, 1))('%s: merges the rest', async (_when, step) => {
      expect((await at.create('s1')).code).toBe(0);
      for (const { name } of disks) await at.vm.write(name, 2, 0, 64);
      await killToolAt(commit, step);
      const found = await expectRecovered();
      expect(found).toMatchObject([{ kind: 'set-commit', status: 'done' }]);
      expect(manifest().state).toBe('committed');
      expect(at.images()).toEqual(originals);
      expect(await at.ourNodes()).toEqual([]);
      expect(await jobs()).toEqual([]);
      await at.vm.quit();
      for (const { name, format } of disks) {
        expect(await holdsPattern(at.folder.path(`images/${name}.${format}`), format, 2, 0, 64)).toBe(true);
      }
    });
  });

  test('a commit that was killed when a disk had changed over is ended first: no guest is held for a cut that must fail', async () => {
    expect((await at.create('s1')).code).toBe(0);
    await killToolAt(commit, { command: 'blockdev-del', when: 'before' });
    const before = at.agent.commands.length;
    const refused = await at.create('s2');
    expect(refused).toMatchObject({ code: 2, error: { code: 'E_UNFINISHED' } });
    expect(at.agent.commands.slice(before)).not.toContain('bridge-freeze');
    await expectRecovered();
    expect((await at.create('s2')).error.message).toBe('none');
  });

  describe('a set cut by a tool that was killed, and the VM started from its bases', () => {
    test.each(['running', 'shut off'])(
      'keeps what the VM wrote in between, and does not call the bases a snapshot (%s)',
      async (how) => {
        await killToolAt(create, { command: 'transaction', when: 'after' });
        await at.vm.write('root0', 2, 0, 64);
        await at.restart(disks.map((disk) => ({ ...disk, file: imagePath(at.folder, disk) })));
        await at.vm.write('data0', 3, 0, 64);
        if (how === 'shut off') await at.vm.quit();
        const [, found] = await expectRecovered();
        expect(found).toMatchObject({ kind: 'set-unfinished', status: 'done' });
        expect(found?.found).toContain('its overlays hold what the VM wrote since');
        expect(manifest()).toMatchObject({ state: 'cut', level: 'none' });
        expect(manifest().disks.map(({ level }) => level)).toEqual([how === 'running' ? 'none' : 'crash', 'none']);
        expect(await holdsPattern(overlay('root0'), 'qcow2', 2, 0, 64)).toBe(true);
        await expectAsked();
      },
    );

    test('is not deleted without a question either', async () => {
      await killToolAt(create, { command: 'transaction', when: 'after' });
      await at.vm.write('root0', 2, 0, 64);
      await at.restart(disks.map((disk) => ({ ...disk, file: imagePath(at.folder, disk) })));
      await expectAsked();
    });

    test('nor if its manifest says that nothing was cut', async () => {
      await killToolAt(create, { command: 'transaction', when: 'after' });
      await at.vm.write('root0', 2, 0, 64);
      await at.vm.quit();
      change({ state: 'failed' });
      await expectAsked();
    });

    test('also if it was not killed: its label falls', async () => {
      expect((await at.create('s1')).code).toBe(0);
      await at.restart(disks.map((disk) => ({ ...disk, file: imagePath(at.folder, disk) })));
      expect(await expectRecovered()).toMatchObject([{ kind: 'base-written', status: 'done' }]);
      expect(manifest()).toMatchObject({ state: 'cut', level: 'none' });
      expect(manifest().disks.map(({ level }) => level)).toEqual(['none', 'none']);
    });
  });

  describe('a revert that was killed', () => {
    const drafts = async (): Promise<void> => {
      for (const { name, format } of disks) {
        const base = at.folder.path(`images/${name}.${format}`);
        const args = ['create', '-q', '-f', 'qcow2', '-u', '-b', base, '-F', format, `${overlay(name)}.revert`, '16M'];
        await execa('qemu-img', args);
      }
    };
    beforeEach(async () => {
      for (const { name } of disks) await at.vm.write(name, 1, 0, 64);
      expect((await at.create('s1')).code).toBe(0);
      for (const { name } of disks) await at.vm.write(name, 2, 0, 64);
      await at.vm.quit();
      await drafts();
    });

    test('before it changed anything: its drafts are removed', async () => {
      expect(await expectRecovered()).toMatchObject([{ kind: 'set-revert', status: 'done' }]);
      expect(at.images()).toHaveLength(4);
      expect(manifest()).toMatchObject({ state: 'cut', level: 'filesystem' });
      for (const { name } of disks) expect(await holdsPattern(overlay(name), 'qcow2', 2, 0, 64)).toBe(true);
    });

    test('between two disks: the rest is reverted', async () => {
      await execa('mv', [`${overlay('root0')}.revert`, overlay('root0')]);
      change({ state: 'reverting' });
      expect(await expectRecovered()).toMatchObject([{ kind: 'set-revert', status: 'done' }]);
      expect(at.images()).toHaveLength(4);
      expect(manifest()).toMatchObject({ state: 'cut' });
      for (const { name } of disks) expect(await holdsPattern(overlay(name), 'qcow2', 1, 0, 64)).toBe(true);
    });

    test('between two disks, and a VM wrote to the one that was reverted: says so, and touches nothing', async () => {
      await execa('mv', [`${overlay('root0')}.revert`, overlay('root0')]);
      change({ state: 'reverting' });
      await execa('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 0 64k', overlay('root0')]);
      const run = await recover();
      expect(run).toMatchObject({ code: 8, json: { findings: [{ kind: 'set-revert', status: 'yours' }] } });
      expect(findings(run)[0]?.commands[0]).toContain('fsfreeze-bridge snapshot revert s1 --vm bare --qmp');
      expect(await holdsPattern(overlay('root0'), 'qcow2', 7, 0, 64)).toBe(true);
      expect(await holdsPattern(overlay('data0'), 'qcow2', 2, 0, 64)).toBe(true);
    });
  });

  test('a delete that was killed between two files is ended', async () => {
    expect((await at.create('s1')).code).toBe(0);
    await at.vm.quit();
    change({ state: 'deleting' });
    await execa('rm', [overlay('root0')]);
    expect(await expectRecovered()).toMatchObject([{ kind: 'set-delete', status: 'done' }]);
    expect(at.images()).toEqual(originals);
    expect(existsSync(at.state('s1'))).toBe(false);
  });

  test.each(['revert', 'delete'])(
    'a %s killed at any instant leaves the old or the new, whole',
    { timeout: 60_000 },
    async (what) => {
      for (const { name } of disks) await at.vm.write(name, 1, 0, 64);
      expect((await at.create('s1')).code).toBe(0);
      for (const { name } of disks) await at.vm.write(name, 2, 0, 64);
      await at.vm.quit();
      const ends = new Set<string>();
      for (let turn = 0; turn < 10 && existsSync(manifestFile()); turn++) {
        const child = at.spawn(['snapshot', what, 's1', '--yes']);
        await new Promise((resolve) => setTimeout(resolve, 250 + turn * 40));
        child.kill('SIGKILL');
        await child;
        await at.leftQemuImgEnded();
        await expectRecovered();
        if (!existsSync(manifestFile())) {
          expect(at.images()).toEqual(originals);
          ends.add('new');
          break;
        }
        expect(manifest().state).toBe('cut');
        const held = await Promise.all(disks.map(({ name }) => holdsPattern(overlay(name), 'qcow2', 2, 0, 64)));
        expect(new Set(held).size).toBe(1);
        ends.add(held[0] === true ? 'old' : 'new');
      }
      expect(ends.size).toBeGreaterThan(0);
    },
  );

  test('leaves a tool at work alone', async () => {
    await using proxy = await StepProxy.listen(at.folder.path('proxy.sock'), at.vm.qmp, {
      command: 'query-blockstats',
      when: 'before',
    });
    const child = at.spawn([...create, '--qmp', proxy.path]);
    await proxy.reached;
    const before = snapshotOfFiles();
    const run = await recover('--monitor-timeout', '0.5');
    expect(findings(run)).toMatchObject([{ kind: 'vm-busy', status: 'busy' }]);
    expect(findings(run)[0]?.found).toContain(`process ${child.pid ?? 0} (create s1, since `);
    expect(run.code).toBe(3);
    expect(snapshotOfFiles()).toEqual(before);
    const deleted = await at.bridge(['snapshot', 'delete', 's1', '--yes', '--monitor-timeout', '0.5']);
    expect(deleted).toMatchObject({ code: 2, error: { code: 'E_VM_BUSY' } });
    proxy.goOn();
    expect((await child).exitCode).toBe(0);
  });

  describe('what is not ours to change', () => {
    test('an overlay that somebody else made is told of, with what merges it', async () => {
      const device = 'node-root0';
      const args = {
        'node-name': device,
        'snapshot-file': at.folder.path('images/foreign.qcow2'),
        'snapshot-node-name': 'foreign',
      };
      await at.vm.control.execute('blockdev-snapshot-sync', args);
      await at.vm.write('root0', 4, 0, 64);
      const run = await recover();
      expect(run).toMatchObject({ code: 8, json: { findings: [{ kind: 'overlay-unknown', status: 'yours' }] } });
      const [finding] = findings(run);
      expect(finding?.found).toContain(
        `${at.folder.path('images/foreign.qcow2')}, which lies on ${at.folder.path('images/root0.raw')}`,
      );
      expect(finding?.found).toContain('QEMU was not started with it');
      expect(at.images()).toContain('foreign.qcow2');
      const [merge = '', end = ''] = finding?.commands ?? [];
      await execa('sh', ['-c', merge]);
      while (((await jobs()) as { status: string }[])[0]?.status !== 'ready')
        await new Promise((resolve) => setTimeout(resolve, 20));
      await execa('sh', ['-c', end]);
      while ((await jobs()).length > 0) await new Promise((resolve) => setTimeout(resolve, 20));
      expect(await at.filesInUse()).toEqual(disks.map((disk) => imagePath(at.folder, disk)));
      expect(await recover()).toMatchObject({ code: 0, json: { findings: [] } });
    });

    test('an image the VM was started with, though it lies on another, is nothing to tell of', async () => {
      const clone = at.folder.path('images/clone.qcow2');
      await execa('qemu-img', [
        'create',
        '-q',
        '-f',
        'qcow2',
        '-b',
        at.folder.path('images/root0.raw'),
        '-F',
        'raw',
        '-u',
        clone,
        '16M',
      ]);
      await at.restart([{ name: 'root0', format: 'qcow2', file: clone }]);
      expect(await recover()).toMatchObject({ code: 0, json: { findings: [] } });
    });

    test.each([
      [
        'another image lies on it',
        async (): Promise<void> => {
          const above = at.folder.path('images/above.qcow2');
          await execa('qemu-img', [
            'create',
            '-q',
            '-f',
            'qcow2',
            '-u',
            '-b',
            overlay('root0'),
            '-F',
            'qcow2',
            above,
            '16M',
          ]);
        },
      ],
      [
        'a process reads it',
        async (): Promise<void> => {
          const reader = execa('tail', ['-f', overlay('root0')], { reject: false, stdout: 'ignore', timeout: 20_000 });
          void reader;
          await new Promise((resolve) => setTimeout(resolve, 300));
        },
      ],
      [
        'another VM has it',
        (): Promise<void> => {
          mkdirSync(at.folder.path('state/other/s9'), { recursive: true });
          const [first] = manifest().disks;
          const above = {
            ...manifest(),
            set: 's9',
            id: 'x',
            state: 'cut',
            vm: { ...manifest().vm, uuid: '01234567-89ab-cdef-0123-456789abcdef' },
            disks: first && [{ ...first, base: first.overlay, overlay: { ...first.overlay, file: '/other.qcow2' } }],
          };
          writeFileSync(at.folder.path('state/other/s9/manifest.json'), JSON.stringify(above));
          return Promise.resolve();
        },
      ],
    ])('an unused overlay stays while %s', async (_what, use) => {
      await killToolAt(create, { command: 'query-blockstats', when: 'before' });
      await use();
      const run = await recover();
      expect(run.code).toBe(8);
      expect(findings(run)).toMatchObject([{ kind: 'set-unfinished', status: 'failed' }]);
      expect(findings(run)[0]?.did).toContain('not removed');
      expect(existsSync(overlay('root0'))).toBe(true);
      expect(existsSync(overlay('data0'))).toBe(true);
      expect(findings(run)[0]?.commands[0]).toContain('snapshot delete s1');
    });
  });

  test('takes our nodes out of QEMU that no set knows, and their empty files', async () => {
    await killToolAt(create, { command: 'query-blockstats', when: 'before' });
    await execa('rm', ['-r', at.state('s1')]);
    expect(await at.ourNodes()).toHaveLength(2);
    expect(await expectRecovered()).toMatchObject([{ kind: 'node-left' }, { kind: 'node-left' }]);
    await expectNothingLeft();
  });

  test.each([
    { command: 'blockdev-create', when: 'after' },
    { command: 'job-dismiss', when: 'before' },
  ] as const)('dismisses the job that formatted an overlay ($when $command)', { timeout: 120_000 }, async (step) => {
    await at[Symbol.asyncDispose]();
    at = await CutHarness.start([], luksDisk);
    await killToolAt(create, step);
    const job = { id: expect.stringMatching(/^fsb-[0-9a-f]{8}-0-create$/) as string, status: 'concluded' };
    await expect.poll(jobs, { timeout: 60_000 }).toMatchObject([job]);
    expect((await expectRecovered()).map(({ kind }) => kind).sort()).toEqual(['job-left', 'set-unfinished']);
    expect(await jobs()).toEqual([]);
    expect(await at.ourNodes()).toEqual([]);
    expect(at.images()).toEqual(['luks0.qcow2']);
  });

  describe('a guest', () => {
    test('that does not confirm is told of first, and again: exit 6', async () => {
      await killToolAt(create, { command: 'transaction', when: 'before' });
      at.agent.mood = 'keeps-frozen';
      for (const turn of [1, 2]) {
        const run = await recover('--thaw-timeout', '0.4');
        expect(run, `turn ${turn}`).toMatchObject({ code: 6 });
        expect(findings(run)[0]).toMatchObject({ kind: 'guest-held', status: 'failed', thawUnconfirmed: true });
        expect(findings(run)[0]?.commands[0]).toContain('fsfreeze-bridge thaw --qga');
      }
      at.agent.mood = 'answers';
      await expectRecovered();
      expect(existsSync(at.state())).toBe(true);
      await expectNothingLeft();
    });

    test('that does not answer while its VM runs: exit 6', async () => {
      await killToolAt(create, { command: 'transaction', when: 'before' });
      at.agent.mood = 'silent';
      const run = await recover('--agent-timeout', '0.3');
      expect(run).toMatchObject({ code: 6 });
      expect(findings(run)[0]).toMatchObject({ kind: 'guest-held', status: 'failed', thawUnconfirmed: true });
    });

    test('that somebody else holds by now is left to him', async () => {
      await killToolAt(create, { command: 'transaction', when: 'before' });
      at.agent.mood = 'busy';
      const run = await recover();
      expect(run.code).toBe(0);
      expect(at.agent.commands).not.toContain('bridge-thaw');
      at.agent.mood = 'answers';
    });
  });

  test('looks at every VM of the state directory when none is named', async () => {
    await killToolAt(create, { command: 'query-blockstats', when: 'before' });
    const words = ['recover', '--state-dir', at.folder.path('state'), '--config', at.folder.path('none.json')];
    const child = await execa(process.execPath, [HOST_TOOL, ...words], { reject: false });
    expect(child).toMatchObject({ exitCode: 2 });
    writeFileSync(at.folder.path('none.json'), JSON.stringify({ vms: { other: { qmp: at.folder.path('off.sock') } } }));
    // It was made through a proxy that is gone: the configuration says where the VM is.
    const vms = {
      other: { qmp: at.folder.path('off.sock') },
      bare: { qmp: at.vm.qmp, qga: at.folder.path('qga.sock') },
    };
    writeFileSync(at.folder.path('none.json'), JSON.stringify({ vms }));
    const run = await execa(process.execPath, [HOST_TOOL, ...words], { reject: false });
    expect(run.stdout).toContain('bare: set s1 was not finished (cutting)');
    expect(run.stdout).toContain('nothing to recover: other');
    expect(run.exitCode).toBe(0);
    await expectNothingLeft();
  });
});

/** Delete asks; nobody is there to answer, so nothing is deleted. */
async function expectAsked(): Promise<void> {
  const run = await at.bridge(['snapshot', 'delete', 's1']);
  expect(run).toMatchObject({ code: 4, error: { code: 'E_DECLINED' } });
  expect(existsSync(overlay('root0'))).toBe(true);
  expect(existsSync(overlay('data0'))).toBe(true);
}
