// The tool as a process of its own, signalled at every step: the guest is thawed first, what can be undone is undone, and
// the exit code says which. A second signal changes nothing, nor does a reader of its output that went away.
import { existsSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Manifest } from '../../src/host/sets/manifest.js';
import { imagePath } from '../support/bare-qemu.js';
import { CutHarness, isOverlay, rootAndData } from '../support/cut-harness.js';
import { StepProxy, type Step } from '../support/lossy-proxy.js';
import { requires } from '../support/requires.js';
import { oneIn } from '../support/variants.js';

const disks = rootAndData;
const create = ['snapshot', 'create', '--name', 's1'] as const;
const names = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
let at: CutHarness;
beforeEach(async () => {
  at = await CutHarness.start(disks);
});
afterEach(async () => {
  await at[Symbol.asyncDispose]();
});

/** As kill(1) does: execa's own follows with SIGKILL after a while. */
function send(child: { readonly pid?: number | undefined }, name: NodeJS.Signals): void {
  if (child.pid === undefined) throw new Error('the tool did not start');
  process.kill(child.pid, name);
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const manifest = (): Manifest => at.manifest();

/** The guest is thawed, and either everything is as it was, or the set is whole. */
async function expectSettled(exitCode: number | undefined): Promise<void> {
  expect([0, 4]).toContain(exitCode);
  expect(at.agent.frozen).toBe(false);
  expect(existsSync(at.state('s1/journal.json'))).toBe(false);
  if (exitCode === 0) {
    expect(manifest()).toMatchObject({ state: 'cut', level: 'filesystem' });
    expect((await at.filesInUse()).every((file) => isOverlay(file, 's1'))).toBe(true);
  } else {
    expect(at.images()).toEqual(['data0.qcow2', 'root0.raw']);
    expect(await at.ourNodes()).toEqual([]);
    expect(existsSync(at.state('s1'))).toBe(false);
    expect(await at.filesInUse()).toEqual(disks.map((disk) => imagePath(at.folder, disk)));
  }
  expect(await at.bridge(['recover'])).toMatchObject({ code: 0, json: { findings: [] } });
}

/** Signals the tool where the step is reached, then lets it go on. */
async function signalAt(words: readonly string[], step: Step, signals: readonly NodeJS.Signals[]) {
  await using proxy = await StepProxy.listen(at.folder.path('proxy.sock'), at.vm.qmp, step);
  const child = at.spawn([...words, '--qmp', proxy.path]);
  await proxy.reached;
  for (const signal of signals) {
    send(child, signal);
    await sleep(50);
  }
  proxy.goOn();
  return await child;
}

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('a signal', () => {
  const steps: readonly [string, Step, number][] = [
    ['while it looks at the VM', { command: 'query-block', when: 'before' }, 4],
    ['before an overlay is added', { command: 'blockdev-add', when: 'before' }, 4],
    ['when one overlay is added', { command: 'blockdev-add', when: 'after' }, 4],
    ['when all overlays are added', { command: 'query-blockstats', when: 'before' }, 4],
    ['when the transaction is sent', { command: 'transaction', when: 'before' }, 0],
    ['when the disks are cut', { command: 'transaction', when: 'after' }, 0],
    ['when the guest is thawed', { command: 'query-blockstats', nth: 2, when: 'before' }, 0],
  ];

  describe.each(names)('%s to snapshot create', (name) => {
    // Each at some of the steps, and at every step one.
    test.each(oneIn(names.length, steps, names.indexOf(name)))('%s', async (_when, step, code) => {
      const { exitCode, stderr } = await signalAt(create, step, [name]);
      const told = stderr.split('\n').filter((line) => line.startsWith('fsfreeze-bridge:'));
      const words = `fsfreeze-bridge: interrupted by ${name}: the guest is thawed, nothing was cut`;
      expect(told).toEqual(code === 0 ? [] : [words]);
      expect(exitCode).toBe(code);
      await expectSettled(exitCode);
    });

    test.each(['before the freeze is answered', 'before the thaw is answered'])('%s', async (when) => {
      const child = at.spawn(create);
      const signal = async (): Promise<void> => {
        send(child, name);
        await sleep(100);
      };
      if (when.includes('freeze')) at.agent.onFreeze = signal;
      else at.agent.onThaw = signal;
      const { exitCode } = await child;
      expect(exitCode).toBe(when.includes('freeze') ? 4 : 0);
      await expectSettled(exitCode);
    });
  });

  test('after the other does not keep the tool from thawing', async () => {
    const child = at.spawn(create);
    at.agent.mood = 'loses-freeze';
    at.agent.onFreeze = () => {
      send(child, 'SIGINT');
    };
    at.agent.onThaw = async () => {
      for (const name of [...names, ...names]) {
        send(child, name);
        await sleep(30);
      }
    };
    const { exitCode } = await child;
    expect(exitCode).toBe(4);
    await expectSettled(exitCode);
  });

  test('while nobody confirms the thaw does not end the tool before its limit: exit 6, and recover knows whom to thaw', async () => {
    const child = at.spawn([...create, '--thaw-timeout', '1', '--lease', '0.2']);
    at.agent.mood = 'keeps-frozen';
    at.agent.onThaw = () => {
      send(child, 'SIGTERM');
    };
    const { exitCode, stderr } = await child;
    expect(exitCode).toBe(6);
    expect(stderr).toContain('look at');
    at.agent.mood = 'answers';
    at.agent.onThaw = () => undefined;
    expect(at.agent.frozen).toBe(true);
    const run = await at.bridge(['recover']);
    expect(run).toMatchObject({ code: 0, json: { findings: [{ kind: 'guest-held', status: 'done' }] } });
    expect(at.agent.frozen).toBe(false);
    expect(await at.bridge(['recover'])).toMatchObject({ code: 0, json: { findings: [] } });
  });

  test('while the transaction is not answered: thawed at its limit, and the block graph says what became of it', async () => {
    const step = { command: 'transaction', when: 'after' } as const;
    await using proxy = await StepProxy.listen(at.folder.path('proxy.sock'), at.vm.qmp, step);
    const child = at.spawn([...create, '--qmp', proxy.path, '--cut-timeout', '0.5']);
    await proxy.reached;
    const heldFrom = performance.now();
    send(child, 'SIGTERM');
    while (at.agent.frozen) await sleep(10);
    expect(performance.now() - heldFrom).toBeLessThan(2000);
    proxy.goOn();
    const { exitCode } = await child;
    expect(exitCode).toBe(7);
    expect(manifest()).toMatchObject({ state: 'cut', level: 'crash' });
  });

  describe.each(oneIn(names.length, names, 1))('%s to snapshot commit', (name) => {
    test('while it merges: the VM stays on its overlay, and commit goes on later', async () => {
      expect((await at.create('s1')).code).toBe(0);
      await at.vm.write('root0', 2, 0, 4096);
      const words = ['snapshot', 'commit', 's1', '--speed', '1'];
      const { exitCode, stderr } = await signalAt(words, { command: 'block-commit', when: 'after' }, [name]);
      expect(exitCode).toBe(5);
      expect(stderr).toContain('s1 is merged in part; commit it again');
      expect(await at.vm.control.execute('query-jobs')).toEqual([]);
      expect(await at.filesInUse()).toContain(at.overlay('root0'));
      expect((await at.bridge(['snapshot', 'commit', 's1'])).code).toBe(0);
      expect(at.images()).toEqual(['data0.qcow2', 'root0.raw']);
    });

    test('when the VM changes over: this disk is finished, the others stay', async () => {
      expect((await at.create('s1')).code).toBe(0);
      const { exitCode } = await signalAt(['snapshot', 'commit', 's1'], { command: 'job-complete', when: 'before' }, [
        name,
      ]);
      expect(exitCode).toBe(5);
      expect(manifest().disks.map(({ merged }) => merged)).toEqual([true, false]);
      expect(await at.bridge(['recover'])).toMatchObject({
        code: 0,
        json: { findings: [{ kind: 'set-commit', status: 'done' }] },
      });
      expect(at.images()).toEqual(['data0.qcow2', 'root0.raw']);
    });
  });

  test.each(oneIn(names.length, names, 2))(
    '%s to recover while it merges: the VM stays on its overlay, and recover goes on later',
    async (name) => {
      expect((await at.create('s1')).code).toBe(0);
      await at.vm.write('root0', 2, 0, 4096);
      await signalAt(['snapshot', 'commit', 's1'], { command: 'block-commit', when: 'before' }, [name]);
      // Its own way to QEMU is the proxy's now, and is silent: waited for as long as this.
      const words = ['recover', '--monitor-timeout', '1'];
      const { exitCode, stderr } = await signalAt(words, { command: 'block-commit', when: 'before' }, [name]);
      expect(stderr).toContain(`interrupted by ${name}: recover goes on when it is called again`);
      expect(exitCode).toBe(4);
      expect(manifest().state).toBe('committing');
      expect(await at.vm.control.execute('query-jobs')).toEqual([]);
      expect(await at.bridge(['recover'])).toMatchObject({ code: 0 });
      expect(at.images()).toEqual(['data0.qcow2', 'root0.raw']);
    },
  );

  test.each(names)('%s ends wait, status and writers at once', async (name) => {
    at.agent.mood = 'silent';
    for (const words of [
      ['wait', '--timeout', '60'],
      ['status', '--agent-timeout', '60'],
      ['writers', '--agent-timeout', '60'],
    ]) {
      const child = at.spawn(words);
      while (at.agent.clients === 0) await sleep(20);
      const from = performance.now();
      send(child, name);
      const { exitCode, stderr } = await child;
      expect(stderr).toContain(`interrupted by ${name}`);
      expect(exitCode).toBe(4);
      while (at.agent.clients > 0) await sleep(20);
      expect(performance.now() - from).toBeLessThan(2000);
    }
  });

  test('of a reader that went away (EPIPE) leaves no guest held', async () => {
    const child = at.spawn(create);
    at.agent.onFreeze = () => {
      child.stdout.destroy();
      child.stderr.destroy();
    };
    const { exitCode } = await child;
    expect(at.agent.frozen).toBe(false);
    expect(exitCode).toBe(0);
    expect(manifest()).toMatchObject({ state: 'cut', level: 'filesystem' });
  });
});
