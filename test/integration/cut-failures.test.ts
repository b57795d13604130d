// Bad input and bad moments, against a real QEMU: each gives one line and its exit code, and leaves the guest thawed
// and the VM on the disks it had.
import { execa } from 'execa';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { QmpClient } from '../../src/qmp/client.js';
import { holdsPattern, imagePath } from '../support/bare-qemu.js';
import { CutHarness, isOverlay, rootAndData, type Run } from '../support/cut-harness.js';
import { filesystemReport, freezeReport } from '../support/freeze-reports.js';
import { LossyProxy } from '../support/lossy-proxy.js';
import { requires } from '../support/requires.js';

const disks = rootAndData;
let at: CutHarness;
beforeEach(async () => {
  at = await CutHarness.start(disks);
});
afterEach(async () => {
  await at[Symbol.asyncDispose]();
});

async function expectUntouched(run: Run, code: number, message: string): Promise<void> {
  expect(run.error.message).toContain(message);
  expect(run.code).toBe(code);
  expect(run.stderr.trim().split('\n')).toHaveLength(1);
  expect(run.json).toHaveProperty('error.exitCode', code);
  expect(at.agent.frozen).toBe(false);
  expect(await at.filesInUse()).toEqual(disks.map((disk) => imagePath(at.folder, disk)));
  expect(await at.ourNodes()).toEqual([]);
  expect(at.images()).toEqual(['data0.qcow2', 'root0.raw']);
  expect(existsSync(at.state('s1'))).toBe(false);
  expect(await at.vm.control.execute('query-status')).toMatchObject({ running: true });
}

async function expectRefused(run: Run, message: string): Promise<void> {
  expect(run).toMatchObject({ code: 4 });
  expect(run.error.message).toContain(message);
  expect(at.agent.frozen).toBe(false);
  expect((await at.ourNodes()).length).toBe(0);
}

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('what cannot be cut', () => {
  describe('is refused before anything is done', () => {
    test('no such monitor', async () => {
      await expectUntouched(await at.create('s1', '--qmp', at.folder.path('none.sock')), 3, 'there is no such socket');
    });

    test("the agent's socket given as the monitor", async () => {
      const run = await at.create('s1', '--qmp', at.folder.path('qga.sock'), '--monitor-timeout', '0.2');
      await expectUntouched(run, 3, 'no greeting');
    });

    test('a monitor in use', async () => {
      await using other = await QmpClient.connect(at.folder.path('qmp.sock'));
      expect(other.connected).toBe(true);
      await expectUntouched(await at.create('s1', '--monitor-timeout', '0.3'), 3, 'in use by another program');
    });

    test('an agent that never answers', async () => {
      at.agent.mood = 'silent';
      await expectUntouched(await at.create('s1', '--agent-timeout', '0.3'), 3, 'guest agent at');
    });

    test('no agent at all', async () => {
      await expectUntouched(await at.create('s1', '--qga', at.folder.path('none.sock')), 3, 'ENOENT');
    });

    test('a guest that somebody else holds', async () => {
      at.agent.mood = 'busy';
      await expectUntouched(await at.create('s1'), 4, 'already held (frozen) by a backup in the guest');
    });

    test('no space', async () => {
      await expectUntouched(await at.create('s1', '--min-free', '99999999'), 5, 'no space for the overlays');
    });

    test('a folder for overlays that is not there', async () => {
      await expectUntouched(await at.create('s1', '--overlay-dir', at.folder.path('none')), 2, 'cannot use');
    });

    test('a name already taken', async () => {
      expect((await at.create('s1')).code).toBe(0);
      expect((await at.bridge(['snapshot', 'commit', 's1'])).code).toBe(0);
      const run = await at.create('s1');
      expect(run).toMatchObject({ code: 2, error: { code: 'E_NAME_TAKEN' } });
    });

    test('a name that is no name', async () => {
      await expectUntouched(await at.create('../s1'), 2, 'expected 1 to 100 of');
    });

    test('a disk that is not there', async () => {
      await expectUntouched(
        await at.create('s1', '--disk', 'sda'),
        2,
        'expected a node, serial or device of: node-root0',
      );
    });

    test('a VM that is on its way to another machine, or to a file', async () => {
      // Half a minute for its 16 MiB. Once all is sent, QEMU completes it in its main loop, and answers nobody meanwhile.
      await at.vm.beginMigration();
      await expectUntouched(await at.create('s1'), 5, 'the VM is being migrated or saved (active)');
    });

    test('a paused VM, unless crash will do', async () => {
      await at.vm.control.execute('stop');
      const refused = await at.create('s1');
      expect(refused).toMatchObject({ code: 4, error: { code: 'E_BELOW_REQUIRED' } });
      expect(refused.error.message).toContain('the VM is paused');
      const lower = await at.create('s2', '--allow-lower');
      expect(lower).toMatchObject({ code: 7, manifest: { level: 'crash', required: 'filesystem', state: 'cut' } });
      const crash = await at.create('s3', '--require', 'crash');
      expect(crash).toMatchObject({ code: 0, manifest: { level: 'crash', required: 'crash' } });
      expect(at.agent.commands).toEqual([]);
    });
  });

  describe('thaws the guest', () => {
    test('that refuses, and prints none of its escapes', async () => {
      at.agent.mood = 'refuses';
      const run = await at.create('s1');
      await expectUntouched(run, 4, 'writer 50-db failed: \\u{1b}[2Jno');
      expect(`${run.stdout}${run.stderr}`).not.toContain('\u001b');
    });

    test('that refuses, cuts it all the same with --allow-lower, and says crash', async () => {
      at.agent.mood = 'refuses';
      const run = await at.create('s1', '--allow-lower');
      expect(run).toMatchObject({ code: 7, manifest: { level: 'crash', state: 'cut' } });
      expect(run.manifest.evidence.join()).toContain('writer 50-db failed');
    });

    test('whose answer to the freeze was lost', async () => {
      at.agent.mood = 'loses-freeze';
      await expectUntouched(await at.create('s1', '--freeze-timeout', '0.3'), 4, 'guest thawed');
      expect(at.agent.commands).toContain('bridge-thaw');
    });

    test('that never gets frozen', async () => {
      at.agent.mood = 'hangs';
      await expectUntouched(await at.create('s1', '--freeze-timeout', '0.3'), 4, 'guest thawed');
    });

    test.each(['SIGINT', 'SIGTERM', 'SIGHUP'])('interrupted by %s while it is being held', async (name) => {
      at.agent.mood = 'loses-freeze';
      const controller = new AbortController();
      at.agent.onFreeze = () => {
        controller.abort(name);
      };
      const words = ['snapshot', 'create', '--name', 's1'];
      await expectUntouched(await at.bridge(words, controller.signal), 4, `interrupted by ${name}`);
      expect(at.agent.commands).toContain('bridge-thaw');
    });

    test('interrupted when it is held and nothing is cut yet', async () => {
      const controller = new AbortController();
      at.agent.onFreeze = () => {
        setImmediate(() => {
          controller.abort('SIGTERM');
        });
      };
      const run = await at.bridge(['snapshot', 'create', '--name', 's1'], controller.signal);
      // The signal meets the cut before it was sent or after: the code says which.
      expect([0, 4]).toContain(run.code);
      expect(at.agent.frozen).toBe(false);
      const ours = (await at.filesInUse()).filter((file) => isOverlay(file, 's1'));
      expect(ours).toHaveLength(run.code === 0 ? 2 : 0);
      expect(existsSync(at.state('s1'))).toBe(run.code === 0);
    });

    test('that did not confirm the thaw: exit 6, the set kept as crash', async () => {
      at.agent.mood = 'keeps-frozen';
      const run = await at.create('s1', '--thaw-timeout', '0.5', '--lease', '0.1');
      expect(run).toMatchObject({ code: 6 });
      expect(run.error.message).toContain('snapshot set s1 was cut, level crash');
      const shown = await at.bridge(['snapshot', 'show', 's1']);
      expect(shown.manifest).toMatchObject({ state: 'cut', level: 'crash' });
      expect(shown.manifest.error).toContain('did not confirm');
    });

    test('that gave up its thaw, though it is idle: exit 6', { timeout: 60_000 }, async () => {
      at.agent.mood = 'gives-up';
      const run = await at.create('s1', '--thaw-timeout', '0.5', '--lease', '0.1');
      expect(run).toMatchObject({ code: 6, json: { error: { facts: { level: 'crash' } } } });
      const thaw = await at.bridge(['thaw', '--timeout', '0.3']);
      expect(thaw).toMatchObject({ code: 6 });
      expect(at.agent.commands).toContain('guest-fsfreeze-thaw');
    });

    test('that did not confirm the thaw, and no manifest can be written: exit 6 all the same', async () => {
      at.agent.mood = 'keeps-frozen';
      at.agent.onThaw = () => {
        rmSync(at.state('s1'), { recursive: true, force: true });
      };
      const run = await at.create('s1', '--thaw-timeout', '0.5', '--lease', '0.1');
      expect(run).toMatchObject({ code: 6 });
      expect(run.error.message).toContain('the manifest of s1 could not be written');
    });

    test('interrupted while the manifest cannot be written: the disks are cut, and it says so', async () => {
      const controller = new AbortController();
      at.agent.onThaw = () => {
        rmSync(at.state('s1'), { recursive: true, force: true });
        controller.abort('SIGTERM');
      };
      const run = await at.bridge(['snapshot', 'create', '--name', 's1'], controller.signal);
      expect(run).toMatchObject({ code: 5, error: { code: 'E_RECORD' } });
      expect((await at.filesInUse()).every((file) => isOverlay(file, 's1'))).toBe(true);
    });

    test('that let go before it was told to: exit 7, the set kept as crash', async () => {
      at.agent.mood = 'expires';
      const run = await at.create('s1');
      expect(run).toMatchObject({ code: 7, manifest: { state: 'cut', level: 'crash', required: 'filesystem' } });
      expect(run.manifest.evidence.join()).toContain('before the requester asked');
    });
  });

  test('a disk without a filesystem is worth what the others are only while nobody writes to it', async () => {
    at.agent.report = freezeReport({ filesystems: at.agent.report.filesystems.slice(0, 1) });
    const still = await at.create('s1');
    expect(still).toMatchObject({ code: 0, manifest: { level: 'filesystem' } });
    expect(still.manifest.disks[1]?.evidence.join()).toContain('nothing was written to it');
    at.agent.onFreeze = () => at.vm.write('data0', 7, 0, 4);
    const written = await at.create('s2');
    expect(written).toMatchObject({ code: 7, manifest: { level: 'crash' } });
    expect(written.manifest.disks.map(({ level }) => level)).toEqual(['filesystem', 'crash']);
  });

  test('refuses to cut a part of a filesystem, and calls it worthless if it must', async () => {
    const serials = [{ serial: 'root0' }, { serial: 'data0' }];
    at.agent.report = freezeReport({ filesystems: [filesystemReport('/lvm', '', { disks: serials })] });
    const refused = await at.create('s1', '--disk', 'root0', '--require', 'crash');
    await expectUntouched(refused, 4, '/lvm lies in part on disks that were not cut (data0)');
    const lower = await at.create('s2', '--disk', 'root0', '--allow-lower');
    expect(lower).toMatchObject({ code: 7, manifest: { level: 'none' } });
    expect((await at.create('s3')).code).toBe(0);
  });

  test('takes a report of a megabyte for no evidence, and loses no set for it', async () => {
    const evidence = Array.from({ length: 20_000 }, () => 'x'.repeat(100));
    at.agent.onThaw = () => {
      at.agent.report = { ...at.agent.report, evidence };
    };
    const run = await at.create('s1');
    expect(run).toMatchObject({ code: 7, manifest: { state: 'cut', level: 'crash' } });
    expect(run.manifest.evidence.join()).toContain('at most 1048576 are taken as evidence');
    expect(readFileSync(at.state('s1/manifest.json')).length).toBeLessThan(100_000);
    expect((await at.bridge(['snapshot', 'commit', 's1'])).code).toBe(0);
    at.agent.onThaw = () => undefined;
    await expectRefused(await at.create('s2'), 'at most 1048576');
  });

  test('asks of a guest with unsafe writers what the guest itself would ask', async () => {
    at.agent.report = { ...at.agent.report, unsafeWriters: [{ what: '/w', reason: 'writable by all' }] };
    const run = await at.create('s1', '--allow-lower');
    expect(run).toMatchObject({ code: 7, manifest: { level: 'filesystem', required: 'application' } });
  });

  test('reports what is left out', async () => {
    const run = await at.create('s1', '--disk', 'root0');
    expect(run.code).toBe(0);
    expect(run.manifest.leftOut).toMatchObject([{ reason: 'not named by --disk' }]);
    expect(await at.filesInUse()).toEqual([at.overlay('root0'), at.folder.path('images/data0.qcow2')]);
  });

  describe('the answer to the transaction is lost', () => {
    const words = (proxy: LossyProxy): string[] => ['--qmp', proxy.path, '--cut-timeout', '0.3'];

    test('the disks were cut: the guest is thawed at once, the set kept as crash', async () => {
      await using proxy = await LossyProxy.listen(at.folder.path('proxy.sock'), at.vm.qmp, 'transaction', 'answer');
      const run = await at.create('s1', ...words(proxy));
      expect(run).toMatchObject({ code: 7, manifest: { state: 'cut', level: 'crash' } });
      expect(run.manifest.evidence.join()).toContain('the answer to the transaction was lost');
      expect(at.agent.frozen).toBe(false);
      const { thawAnsweredMs = 0 } = run.manifest.timings.marks;
      const asked = run.manifest.monitorLog.find(
        ({ sentMs }) => sentMs > (run.manifest.timings.marks.cutAnsweredMs ?? 0),
      );
      expect(asked?.sentMs).toBeGreaterThan(thawAnsweredMs);
    });

    test('the disks were not cut: everything is undone', async () => {
      await using proxy = await LossyProxy.listen(at.folder.path('proxy.sock'), at.vm.qmp, 'transaction', 'request');
      await expectUntouched(await at.create('s1', ...words(proxy)), 5, 'no answer within 300 ms');
    });

    test('nobody knows: nothing is removed, and show finds out', async () => {
      await using proxy = await LossyProxy.listen(at.folder.path('proxy.sock'), at.vm.qmp, 'transaction', 'hang-up');
      const run = await at.create('s1', ...words(proxy));
      expect(run).toMatchObject({ code: 5, json: { error: { outcome: 'unknown' } } });
      expect(at.agent.frozen).toBe(false);
      expect((await at.filesInUse()).every((file) => isOverlay(file, 's1'))).toBe(true);
      const shown = await at.bridge(['snapshot', 'show', 's1']);
      expect(shown.manifest).toMatchObject({ state: 'cut', level: 'crash' });
    });
  });

  test('the tool killed after its transaction: the set is found, shown and committed', async () => {
    const tool: { kill?: () => boolean } = {};
    at.agent.onThaw = () => {
      tool.kill?.();
      return new Promise((resolve) => setTimeout(resolve, 100));
    };
    const child = at.spawn(['snapshot', 'create', '--name', 's1']);
    tool.kill = () => child.kill('SIGKILL');
    expect((await child).signal).toBe('SIGKILL');
    const left = JSON.parse(readFileSync(at.state('s1/manifest.json'), 'utf8')) as object;
    expect(left).toMatchObject({ state: 'cutting' });
    await at.vm.write('data0', 9, 0, 64);
    const shown = await at.bridge(['snapshot', 'show', 's1']);
    expect(shown).toMatchObject({ code: 0, manifest: { state: 'cut', level: 'crash' } });
    const committed = await at.bridge(['snapshot', 'commit', 's1']);
    expect(committed).toMatchObject({ code: 0, manifest: { state: 'committed' } });
    expect(at.images()).toEqual(['data0.qcow2', 'root0.raw']);
    await at.vm.quit();
    expect(await holdsPattern(at.folder.path('images/data0.qcow2'), 'qcow2', 9, 0, 64)).toBe(true);
  });

  test('the tool killed before its transaction: the set can be deleted, and its overlays are taken out of QEMU', async () => {
    const tool: { kill?: () => boolean } = {};
    at.agent.onFreeze = () => {
      tool.kill?.();
      return new Promise((resolve) => setTimeout(resolve, 100));
    };
    const child = at.spawn(['snapshot', 'create', '--name', 's1']);
    tool.kill = () => child.kill('SIGKILL');
    expect((await child).signal).toBe('SIGKILL');
    expect(await at.ourNodes()).toHaveLength(2);
    const shown = await at.bridge(['snapshot', 'show', 's1']);
    expect(shown.manifest).toMatchObject({ state: 'failed', level: 'none' });
    const deleted = await at.bridge(['snapshot', 'delete', 's1']);
    expect(deleted.stderr).toBe('');
    expect(deleted.code).toBe(0);
    expect(await at.ourNodes()).toEqual([]);
    expect(at.images()).toEqual(['data0.qcow2', 'root0.raw']);
  });

  test('the tool ended by SIGTERM while the guest is held: thawed, nothing cut, exit 4', async () => {
    at.agent.mood = 'loses-freeze';
    const child = at.spawn(['snapshot', 'create', '--name', 's1']);
    at.agent.onFreeze = () => {
      child.kill('SIGTERM');
    };
    const { exitCode, stderr } = await child;
    expect(stderr).toContain('interrupted by SIGTERM: the guest is thawed, nothing was cut');
    expect(exitCode).toBe(4);
    expect(at.agent.frozen).toBe(false);
    expect(at.images()).toEqual(['data0.qcow2', 'root0.raw']);
  });

  test('reverts with the VM shut off only, and deletes what nobody uses', async () => {
    await at.vm.write('root0', 1, 0, 64);
    expect((await at.create('s1')).code).toBe(0);
    await at.vm.write('root0', 2, 0, 64);
    expect(await at.bridge(['snapshot', 'revert', 's1', '--yes'])).toMatchObject({
      code: 2,
      error: { code: 'E_VM_RUNS' },
    });
    await at.vm.quit();
    // Somebody still has the base open, for reading even.
    const reader = execa('tail', ['-f', at.folder.path('images/root0.raw')], { reject: false, stdout: 'ignore' });
    await new Promise((resolve) => setTimeout(resolve, 200));
    const held = await at.bridge(['snapshot', 'revert', 's1', '--yes']);
    expect(held).toMatchObject({ code: 2, error: { code: 'E_IN_USE' } });
    expect(held.error.message).toContain('tail');
    reader.kill();
    await reader;
    const declined = await at.bridge(['snapshot', 'revert', 's1']);
    expect(declined).toMatchObject({ code: 4, error: { code: 'E_DECLINED' } });
    const overlay = at.overlay('root0');
    expect(await holdsPattern(overlay, 'qcow2', 2, 0, 64)).toBe(true);
    expect((await at.bridge(['snapshot', 'revert', 's1', '--yes'])).code).toBe(0);
    expect(await holdsPattern(overlay, 'qcow2', 1, 0, 64)).toBe(true);
    expect((await at.bridge(['snapshot', 'delete', 's1'])).code).toBe(4);
    expect((await at.bridge(['snapshot', 'delete', 's1', '--yes'])).code).toBe(0);
    expect(at.images()).toEqual(['data0.qcow2', 'root0.raw']);
    expect(await holdsPattern(at.folder.path('images/root0.raw'), 'raw', 1, 0, 64)).toBe(true);
  });
});
