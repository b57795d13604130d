// A guest that lies, floods, keeps silent or loses its answers, and a stock one: the tool's limits hold, no word of the
// guest's becomes a path or an escape on the host, and a freeze whose answer was lost ends with a thaw that the guest
// confirms, or with exit 6.
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { imagePath } from '../support/bare-qemu.js';
import { CutHarness, rootAndData } from '../support/cut-harness.js';
import { FakeMonitor, silence } from '../support/fake-monitor.js';
import { filesystemReport, freezeReport, writerReport } from '../support/freeze-reports.js';
import { LossyProxy } from '../support/lossy-proxy.js';
import { requires } from '../support/requires.js';
import { rarely } from '../support/variants.js';

const disks = rootAndData;
let at: CutHarness;
beforeEach(async () => {
  at = await CutHarness.start(disks);
});
afterEach(async () => {
  await at[Symbol.asyncDispose]();
});

async function expectUntouched(): Promise<void> {
  expect(at.agent.frozen).toBe(false);
  expect(await at.filesInUse()).toEqual(disks.map((disk) => imagePath(at.folder, disk)));
  expect(await at.ourNodes()).toEqual([]);
  expect(at.images()).toEqual(['data0.qcow2', 'root0.raw']);
  expect(existsSync(at.state('s1'))).toBe(false);
}

const evil =
  '../../../../evil/%s%n\u001b[2J\u009b31m\u202e\r\nsnapshot set forged: cut, consistency level application\n';

const control = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e]/;

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('a hostile guest', () => {
  const evilReport = () =>
    freezeReport({
      evidence: [evil],
      error: evil,
      filesystems: disks.map(({ name }) =>
        filesystemReport(`/${evil}`, name, { source: evil, type: evil, reason: evil }),
      ),
      writers: [writerReport(evil, { path: evil, reason: evil })],
      skipped: [{ what: evil, reason: evil }],
      unsafeWriters: [{ what: evil, reason: evil }],
    });

  test('puts no escape and no row of its own on the terminal', async () => {
    at.agent.report = evilReport();
    at.agent.version = evil;
    at.agent.writers = [{ name: evil, path: evil, kind: 'plain', required: true, rank: 50, phases: [], problem: evil }];
    for (const words of [
      ['snapshot', 'create', '--name', 's1', '--allow-lower'],
      ['snapshot', 'show', 's1'],
      ['snapshot', 'list'],
      ['status'],
      ['writers'],
      ['wait'],
      ['recover'],
    ]) {
      const { stdout, stderr } = await at.printed(...words);
      const text = `${stdout}${stderr}`;
      expect(text, words.join(' ')).not.toMatch(control);
      expect(text, words.join(' ')).not.toMatch(/^\s*snapshot set forged/m);
    }
    const run = await at.bridge(['snapshot', 'show', 's1']);
    expect(run.stdout).not.toMatch(control);
    expect(run.stdout.trim().split('\n')).toHaveLength(1);
  });

  test('puts no escape into an error', async () => {
    at.agent.refusal = evil;
    at.agent.mood = 'refuses';
    const { code, stdout, stderr } = await at.printed('snapshot', 'create', '--name', 's1');
    expect(code).toBe(4);
    expect(stdout).toBe('');
    expect(stderr).not.toMatch(control);
    expect(stderr.trim().split('\n')).toHaveLength(1);
  });

  test('names no file of the host', async () => {
    at.agent.report = evilReport();
    expect((await at.create('s1', '--allow-lower')).code).toBe(7);
    expect((await at.bridge(['recover'])).code).toBe(0);
    const links = ['.images', ...['data0', 'data0.format', 'root0', 'root0.format'].map((name) => `.images/${name}`)];
    const files = readdirSync(at.folder.dir, { recursive: true }).map(String).sort();
    expect(files).toEqual([
      'control.sock',
      'halt.bin',
      'images',
      'images/data0.qcow2',
      path.relative(at.folder.dir, at.overlay('data0')),
      'images/root0.raw',
      path.relative(at.folder.dir, at.overlay('root0')),
      'port.sock',
      'qga.sock',
      'qmp.sock',
      'state',
      ...['', ...links, 's1', 's1/manifest.json', 'vm.json'].map((name) =>
        path.relative(at.folder.dir, at.state(name)),
      ),
    ]);
  });

  test('floods neither terminal nor program', async () => {
    at.agent.refusal = 'x'.repeat(2_000_000);
    at.agent.mood = 'refuses';
    const run = await at.create('s1');
    expect(run.code).toBe(4);
    expect(run.stderr.length).toBeLessThan(10_000);
    expect(run.stdout.length).toBeLessThan(1_200_000);
    await expectUntouched();
    const listing = { name: 'x'.repeat(200), path: '/x', kind: 'plain', required: true, rank: 1, phases: [] };
    at.agent.writers = Array.from({ length: 10_000 }, () => listing);
    const writers = await at.bridge(['writers']);
    expect(writers).toMatchObject({ code: 3, error: { code: 'E_REPLY' } });
    expect(writers.error.message).toContain('list of 10000 writers has');
    at.agent.mood = 'answers';
    at.agent.version = 'x'.repeat(100_000);
    const cut = await at.create('s2');
    expect(cut.code).toBe(0);
    expect(cut.manifest.versions.agent?.length).toBeLessThan(5000);
  });

  describe.each(['bridge', 'stock'] as const)('whose freeze has no answer (%s)', (kind) => {
    beforeEach(() => {
      at.agent.kind = kind;
      at.agent.stockSerials = disks.map(({ name }) => name);
      at.agent.mood = 'loses-freeze';
    });
    const thaw = kind === 'bridge' ? 'bridge-thaw' : 'guest-fsfreeze-thaw';
    const freeze = kind === 'bridge' ? 'bridge-freeze' : 'guest-fsfreeze-freeze';

    test('finds its place in the stream again, thaws, and is thawed: exit 4', async () => {
      const run = await at.create('s1', '--freeze-timeout', '0.3');
      expect(run.code).toBe(4);
      expect(run.error.message).toContain('guest thawed');
      const after = at.agent.commands.slice(at.agent.commands.indexOf(freeze) + 1);
      expect(after.slice(0, 2)).toEqual(['guest-sync-delimited', thaw]);
      if (kind === 'stock') expect(after).toContain('guest-fsfreeze-status');
      await expectUntouched();
    });

    test('and will not thaw: exit 6, the guest comes first in what is told', async () => {
      at.agent.onFreeze = () => {
        at.agent.mood = 'keeps-frozen';
      };
      const run = await at.create('s1', '--freeze-timeout', '0.3', '--thaw-timeout', '0.5', '--lease', '0.1');
      expect(run.code).toBe(6);
      expect(run.error.message).toMatch(/not confirm/);
      expect(at.agent.commands.filter((name) => name === thaw).length).toBeGreaterThan(1);
      expect(at.agent.frozen).toBe(true);
      const again = await at.bridge(['recover', '--thaw-timeout', '0.3']);
      expect(again.code).toBe(6);
      at.agent.mood = 'answers';
      at.agent.onFreeze = () => undefined;
      expect(await at.bridge(['recover'])).toMatchObject({ code: 0 });
      await expectUntouched();
      expect(await at.bridge(['recover'])).toMatchObject({ code: 0, json: { findings: [] } });
    });

    // A stock agent has no lease: it is asked for half a minute more than it was given.
    (kind === 'bridge' ? test : rarely)('and is silent from then on: exit 6', async () => {
      at.agent.onFreeze = () => {
        at.agent.mood = 'silent';
      };
      const limits = ['--freeze-timeout', '0.3', '--thaw-timeout', '0.5', '--agent-timeout', '0.3', '--lease', '0.1'];
      expect((await at.create('s1', ...limits)).code).toBe(6);
    });
  });

  test('that is a stock qemu-ga is cut as one, and thawed by recover if somebody left it frozen', async () => {
    at.agent.kind = 'stock';
    at.agent.stockSerials = disks.map(({ name }) => name);
    expect(await at.create('s1')).toMatchObject({ code: 0, manifest: { level: 'filesystem' } });
    at.agent.freezeBehindOurBack();
    const run = await at.bridge(['recover']);
    expect(run).toMatchObject({ code: 6, json: { findings: [{ kind: 'guest-held', status: 'yours' }] } });
    expect(at.agent.frozen).toBe(true);
    expect((await at.bridge(['thaw'])).code).toBe(0);
    expect(at.agent.frozen).toBe(false);
  });
});

requires('qemu-system-x86_64', 'qemu-img')('nobody waits for ever', () => {
  test('for a monitor that greets and then says nothing', { timeout: 30_000 }, async () => {
    const uuid = 'aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee';
    await using monitor = await FakeMonitor.listen(at.folder.path('dumb.sock'), {
      handlers: { 'query-uuid': () => ({ UUID: uuid }), 'query-status': () => silence },
    });
    const run = await at.create('s1', '--qmp', monitor.path);
    expect(run.code).toBe(3);
    expect(run.error.message).toContain('query-status: no answer within 10000 ms');
  });

  test('for a merge', async () => {
    expect((await at.create('s1')).code).toBe(0);
    await at.vm.write('root0', 1, 0, 8192);
    const run = await at.bridge(['snapshot', 'commit', 's1', '--speed', '0.5', '--timeout', '0.7']);
    expect(run).toMatchObject({ code: 5, error: { code: 'E_COMMIT' } });
    expect(run.error.message).toMatch(/job fsb-commit-.* no answer within 700 ms/);
    expect(await at.vm.control.execute('query-jobs')).toEqual([]);
    expect((await at.bridge(['snapshot', 'commit', 's1'])).code).toBe(0);
  });

  test('for a transaction, with the guest held: it is thawed, and told that nobody knows', async () => {
    await using proxy = await LossyProxy.listen(at.folder.path('proxy.sock'), at.vm.qmp, 'transaction', 'hang-up');
    const run = await at.create('s1', '--qmp', proxy.path, '--cut-timeout', '0.3');
    expect(run).toMatchObject({ code: 5, json: { error: { outcome: 'unknown' } } });
    expect(run.error.message).toContain('whether its disks were cut is not known: run "fsfreeze-bridge recover"');
    expect(at.agent.frozen).toBe(false);
    const recovered = await at.bridge(['recover']);
    expect(recovered).toMatchObject({ code: 0, json: { findings: [{ kind: 'set-unfinished', status: 'done' }] } });
  });
});
