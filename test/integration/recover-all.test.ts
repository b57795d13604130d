// `recover` for every VM: one that is broken, hangs or cannot be read is told of, and keeps none of the others from being put
// right.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Finding } from '../../src/host/recover/finding.js';
import type { BareDisk } from '../support/bare-qemu.js';
import { CutHarness, type Run } from '../support/cut-harness.js';
import { manifest } from '../support/manifests.js';
import { requires } from '../support/requires.js';

const disks: readonly BareDisk[] = [{ name: 'root0', format: 'raw' }];
let at: CutHarness;
beforeEach(async () => {
  at = await CutHarness.start(disks);
  await at.killToolAt(['snapshot', 'create', '--name', 's1'], { command: 'query-blockstats', when: 'before' });
  expect(at.images()).toHaveLength(2);
});
afterEach(async () => {
  await at[Symbol.asyncDispose]();
});

const uuidOf = (digit: number): string => `${digit}0000000-0000-4000-8000-000000000000`;
/** A VM that sorts before the good one: `files` lie in its folder, beside a record of where it is reached. */
function addVm(digit: number, name: string, files: Record<string, string | undefined>, qmp = '/nonexistent/q'): void {
  const folder = at.folder.path(`state/${uuidOf(digit)}`);
  mkdirSync(folder, { recursive: true });
  const record = { format: 1, uuid: uuidOf(digit), names: [name], qmp: [qmp], qga: [], lastSeen: 'then' };
  writeFileSync(`${folder}/vm.json`, JSON.stringify(record));
  for (const [file, text] of Object.entries(files)) {
    mkdirSync(`${folder}/${text === undefined ? file : file.replace(/\/[^/]*$/, '')}`, { recursive: true });
    if (text !== undefined) writeFileSync(`${folder}/${file}`, text);
  }
}
const recoverAll = (vms: object = {}): Promise<Run> => {
  const all = { ...vms, zz: { qmp: at.vm.qmp, qga: at.folder.path('qga.sock') } };
  writeFileSync(at.folder.path('vms.json'), JSON.stringify({ vms: all }));
  return at.tool('recover', '--config', at.folder.path('vms.json'), '--monitor-timeout', '0.3');
};
const findings = (run: Run): Finding[] => run.json['findings'] as Finding[];
const of = (run: Run, vm: string): Finding[] => findings(run).filter((finding) => finding.vm === vm);

requires('qemu-system-x86_64', 'qemu-img')('recover of all VMs', () => {
  const expectGoodOne = (run: Run): void => {
    expect(of(run, 'zz')).toMatchObject([{ kind: 'set-unfinished', status: 'done' }]);
    expect(at.images()).toEqual(['root0.raw']);
  };

  test('tells of one whose folder cannot be read', async () => {
    // A journal that is a folder: no read of it succeeds, whoever asks.
    addVm(1, 'unreadable', { 's1/journal.json': undefined });
    const run = await recoverAll();
    expect(of(run, 'unreadable')).toMatchObject([{ kind: 'vm-failed', status: 'failed' }]);
    expect(run.code).toBe(8);
    expectGoodOne(run);
  });

  test('tells of one whose monitor hangs', async () => {
    const silent = createServer();
    await new Promise<void>((resolve) => {
      silent.listen(at.folder.path('silent.sock'), resolve);
    });
    try {
      const text = JSON.stringify(manifest('s1'));
      addVm(2, 'hanging', { 's1/manifest.json': text }, at.folder.path('silent.sock'));
      const run = await recoverAll({ aa: { qmp: at.folder.path('silent.sock') } });
      expect(of(run, 'aa')).toMatchObject([{ kind: 'vm-unreachable', status: 'busy' }]);
      expect(run.code).toBe(3);
      expectGoodOne(run);
    } finally {
      await new Promise((resolve) => silent.close(resolve));
    }
  });

  test('tells of one whose manifest is broken, and of what is nobody knows whose', async () => {
    addVm(3, 'broken', { 's1/manifest.json': '{' });
    mkdirSync(at.folder.path('state/lost/s1'), { recursive: true });
    writeFileSync(at.folder.path('state/lost/s1/manifest.json'), '{');
    const run = await recoverAll();
    expect(of(run, 'broken')).toMatchObject([{ kind: 'set-unreadable', status: 'yours' }]);
    expect(of(run, 'lost/s1')).toMatchObject([{ kind: 'folder-unknown', status: 'yours' }]);
    expect(run.code).toBe(8);
    // Either may name any file: no file of the good one is removed before they are repaired or gone.
    const [good] = of(run, 'zz');
    expect(good).toMatchObject({ kind: 'set-unfinished', status: 'failed' });
    expect(good?.did).toContain('cannot be read');
    for (const folder of [uuidOf(3), 'lost']) rmSync(at.folder.path(`state/${folder}`), { recursive: true });
    expectGoodOne(await recoverAll());
  });

  test('tells of one whose name and place were two VMs', async () => {
    addVm(4, 'twice', { 's1/manifest.json': JSON.stringify(manifest('s1')) });
    addVm(5, 'twice', { 's1/manifest.json': JSON.stringify(manifest('s1')) });
    const run = await recoverAll({ twice: { qmp: '/nonexistent/q' } });
    expect(of(run, 'twice')).toMatchObject([{ kind: 'vm-failed', status: 'failed' }]);
    expect(of(run, 'twice')[0]?.did).toContain(`--vm: ${uuidOf(4)}`);
    expect(run.code).toBe(8);
    expectGoodOne(run);
  });
});

test('a configuration that cannot be read ends it: nobody knows what is meant', async () => {
  writeFileSync(at.folder.path('vms.json'), '{');
  const run = await at.tool('recover', '--config', at.folder.path('vms.json'));
  expect(run).toMatchObject({ code: 2, error: { code: 'E_CONFIG' } });
});
