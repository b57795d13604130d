// One lock per VM over all that changes it: two tools at once, whatever they do, are one after the other or one of them is
// told who is at work. Two VMs never wait for each other.
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { holdsPattern } from '../support/bare-qemu.js';
import { CutHarness, rootAndData, type Run } from '../support/cut-harness.js';
import { StepProxy } from '../support/lossy-proxy.js';
import { SlowProxy } from '../support/slow-proxy.js';
import { requires } from '../support/requires.js';
import { isThorough } from '../support/variants.js';

const disks = rootAndData;
let at: CutHarness;
beforeEach(async () => {
  at = await CutHarness.start(disks);
  // Two tools, two monitors: neither waits for the other's connection.
  await at.restart(disks, ['-qmp', `unix:${at.folder.path('second.sock')},server=on,wait=off`]);
});
afterEach(async () => {
  await at[Symbol.asyncDispose]();
});

const create = (name: string): string[] => ['snapshot', 'create', '--name', name];
const second = (): string[] => ['--qmp', at.folder.path('second.sock')];
const list = async (): Promise<{ set: string; state: string }[]> => {
  return (await at.bridge(['snapshot', 'list'])).json['sets'] as { set: string; state: string }[];
};

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('the lock of a VM', () => {
  test('is had by create from before it looks at the VM', async () => {
    const step = { command: 'query-status', when: 'before' } as const;
    await using proxy = await StepProxy.listen(at.folder.path('proxy.sock'), at.vm.qmp, step);
    const first = at.bridge([...create('s1'), '--qmp', proxy.path]);
    await proxy.reached;
    const lock = JSON.parse(readFileSync(at.state('lock.json'), 'utf8')) as object;
    expect(lock).toMatchObject({ operation: 'create', set: 's1', owner: { pid: process.pid } });
    for (const words of [create('s2'), ['snapshot', 'commit', 's1'], ['snapshot', 'delete', 's1', '--yes']]) {
      const run = await at.bridge([...words, ...second()]);
      expect(run, words.join(' ')).toMatchObject({ code: 2, error: { code: 'E_VM_BUSY' } });
      expect(run.error.message).toContain(`VM bare is being worked on by process ${process.pid} (create s1, since 20`);
    }
    expect((await at.bridge(['snapshot', 'list', ...second()])).code).toBe(0);
    proxy.goOn();
    expect((await first).code).toBe(0);
    expect((await at.bridge([...create('s2'), ...second()])).code).toBe(0);
  });

  test('is waited for, if that is asked', async () => {
    const step = { command: 'blockdev-add', when: 'before' } as const;
    await using proxy = await StepProxy.listen(at.folder.path('proxy.sock'), at.vm.qmp, step);
    const first = at.bridge([...create('s1'), '--qmp', proxy.path]);
    await proxy.reached;
    const late = at.bridge([...create('s2'), '--lock-timeout', '20']);
    await new Promise((resolve) => setTimeout(resolve, 300));
    proxy.goOn();
    expect((await first).code).toBe(0);
    const run = await late;
    expect(run.error.message).toBe('none');
    expect(run.manifest.disks[0]?.base.file).toBe(at.overlay('root0'));
  });

  test('of a tool that was killed is taken over', async () => {
    await at.killToolAt(create('s1'), { command: 'blockdev-add', when: 'before' });
    expect((await at.bridge([...create('s2'), ...second()])).error.message).toBe('none');
  });

  test('keeps nobody from another VM', async () => {
    await using beside = await CutHarness.start(disks);
    const step = { command: 'query-status', when: 'before' } as const;
    await using proxy = await StepProxy.listen(at.folder.path('proxy.sock'), at.vm.qmp, step);
    const first = at.bridge([...create('s1'), '--qmp', proxy.path]);
    await proxy.reached;
    const sockets = ['--qmp', beside.vm.qmp, '--qga', beside.folder.path('qga.sock')];
    const run = await at.bridge([...create('s1'), ...sockets]);
    expect(run.error.message).toBe('none');
    expect(run.manifest.vm.uuid).toBe(basename(beside.state()));
    proxy.goOn();
    expect((await first).code).toBe(0);
    expect(await list()).toMatchObject([{ set: 's1', state: 'cut' }]);
  });

  describe('two tools at once, in rounds of other delays', () => {
    const ROUNDS = isThorough ? 5 : 2;
    type Words = readonly string[];
    const race = async (one: Words, other: Words): Promise<readonly [Run, Run]> => {
      await using fast = await SlowProxy.listen(at.folder.path('fast.sock'), at.vm.qmp, 8);
      await using slow = await SlowProxy.listen(at.folder.path('slow.sock'), at.folder.path('second.sock'), 8);
      const later = new Promise((resolve) => setTimeout(resolve, Math.random() * 150));
      return await Promise.all([
        at.bridge([...one, '--qmp', fast.path]),
        later.then(() => at.bridge([...other, '--qmp', slow.path])),
      ]);
    };
    const expectBusyOr = ({ code, error }: Run, expected: readonly string[]): void => {
      if (code !== 0) expect(expected).toContain(error.code);
    };
    /** Whatever was made is merged back, newest first; no write is lost. */
    const expectWhole = async (round: number): Promise<void> => {
      await at.vm.write('root0', round + 1, 64 * round, 64);
      const open = (await list()).filter(({ state }) => state !== 'committed');
      for (const { set, state } of open.toReversed()) {
        expect(state).toBe('cut');
        expect((await at.bridge(['snapshot', 'commit', set])).error.message).toBe('none');
      }
      expect(at.images()).toEqual(['data0.qcow2', 'root0.raw']);
      expect(await at.ourNodes()).toEqual([]);
    };
    const expectWrites = async (): Promise<void> => {
      await at.vm.quit();
      for (let round = 0; round < ROUNDS; round++) {
        expect(await holdsPattern(at.folder.path('images/root0.raw'), 'raw', round + 1, 64 * round, 64)).toBe(true);
      }
    };

    test('create and create', { timeout: 120_000 }, async () => {
      for (let round = 0; round < ROUNDS; round++) {
        const runs = await race(create(`a${round}`), create(`b${round}`));
        for (const run of runs) expectBusyOr(run, ['E_VM_BUSY']);
        expect(runs.map(({ code }) => code)).toContain(0);
        await expectWhole(round);
      }
      await expectWrites();
    });

    test('create and commit', { timeout: 120_000 }, async () => {
      for (let round = 0; round < ROUNDS; round++) {
        expect((await at.create(`a${round}`)).code).toBe(0);
        const [made, merged] = await race(create(`b${round}`), ['snapshot', 'commit', `a${round}`]);
        expectBusyOr(made, ['E_VM_BUSY']);
        expectBusyOr(merged, ['E_VM_BUSY', 'E_NEWER_SETS']);
        await expectWhole(round);
      }
      await expectWrites();
    });

    test('commit and commit', { timeout: 120_000 }, async () => {
      for (let round = 0; round < ROUNDS; round++) {
        expect((await at.create(`a${round}`)).code).toBe(0);
        const words = ['snapshot', 'commit', `a${round}`];
        for (const run of await race(words, words)) expectBusyOr(run, ['E_VM_BUSY', 'E_STATE_OF_SET']);
        await expectWhole(round);
      }
      await expectWrites();
    });

    test('create and recover', { timeout: 120_000 }, async () => {
      for (let round = 0; round < ROUNDS; round++) {
        const [made, looked] = await race(create(`a${round}`), ['recover']);
        expectBusyOr(made, ['E_VM_BUSY']);
        expect([0, 3]).toContain(looked.code);
        expect(at.agent.frozen).toBe(false);
        await expectWhole(round);
      }
      await expectWrites();
    });
  });
});
