// Backups of a VM that is shut off: from its images, by a QEMU that stands in for it.
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { afterEach, expect, test } from 'vitest';
import { holdersOf } from '../../src/host/images/image-file.js';
import { BackupHarness } from '../support/backup-harness.js';
import type { BareDisk } from '../support/bare-qemu.js';
import { expectAllGood } from '../support/expect-all-good.js';
import { requires } from '../support/requires.js';

let vm: BackupHarness;
afterEach(async () => {
  await vm[Symbol.asyncDispose]();
});
const disks: readonly BareDisk[] = [
  { name: 'root0', format: 'raw' },
  { name: 'data0', format: 'qcow2' },
];
const images = (): BareDisk[] =>
  disks.map((disk) => ({ ...disk, file: vm.at.folder.path(`images/${disk.name}.${disk.format}`) }));
let pattern = 1;
const writes = async (): Promise<void> => {
  for (const { name } of disks) await vm.write(name, pattern++, pattern * 128, 128);
};
/** Of the images, byte for byte, and when each was written to. */
const contents = (): unknown[] =>
  images().map(({ file = '' }) => [
    createHash('sha256').update(readFileSync(file)).digest('hex'),
    statSync(file, { bigint: true }).mtimeNs,
  ]);

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('a VM that is shut off', () => {
  test('is backed up as an increment, and so is what it writes when it runs again', async () => {
    vm = await BackupHarness.start(disks);
    await writes();
    expect((await vm.run()).error.message).toBe('none');
    await writes();
    await vm.at.vm.quit();
    const asTheyWere = contents();
    const dry = await vm.at.bridge(vm.words('--dry-run'));
    expect(dry.error.message).toBe('none');
    expect(dry.json).toMatchObject({
      disks: [
        { id: 'root0', kind: 'full' },
        { id: 'data0', kind: 'incremental', base: vm.states.keys().next().value, bytes: 2 * 65_536 },
      ],
    });
    const named = await vm.at.bridge(vm.words('--dry-run', '--disk', 'data0'));
    expect(named.json).toMatchObject({ disks: [{ id: 'data0' }] });
    // Neither a bitmap nor a header, and not even the time of a write.
    expect(contents()).toEqual(asTheyWere);
    const off = await vm.run();
    expect(off.error.message).toBe('none');
    expect(off.code).toBe(0);
    expect(off.made.disks[1]?.copiedBytes).toBe(2 * 65_536);
    expect(off.made).toMatchObject({ level: 'crash', required: 'crash', vm: { status: 'shut off' } });
    expect(off.made.disks.map(({ kind, id }) => [id, kind])).toEqual([
      ['root0', 'full'],
      ['data0', 'incremental'],
    ]);
    expect(off.made.disks.map(({ serial }) => serial)).toEqual(['root0', 'data0']);
    expect(off.made.evidence.join()).toContain('the VM is shut off');
    const again = await vm.run();
    expect(again.made.disks[1]).toMatchObject({ kind: 'incremental', copiedBytes: 0 });
    await vm.at.start(images());
    await writes();
    const on = await vm.run();
    expect(on.made.disks[1]?.base?.run).toBe(again.made.run);
    await expectAllGood(vm);
  });

  test('is backed up from its overlays', async () => {
    vm = await BackupHarness.start(disks);
    await writes();
    await vm.run();
    expect((await vm.at.create('s1')).error.message).toBe('none');
    await writes();
    await vm.at.vm.quit();
    const off = await vm.run();
    expect(off.error.message).toBe('none');
    expect(off.made.disks[1]?.kind).toBe('incremental');
    expect(off.made.disks.map(({ source }) => source.file)).toEqual(disks.map(({ name }) => vm.at.overlay(name)));
    await expectAllGood(vm);
    // The cut is as it was.
    const shown = await vm.at.bridge(['snapshot', 'show', 's1']);
    expect(shown.json).toMatchObject({ level: 'filesystem' });
  });

  test('is refused if a level was asked for, its images are in use, or nobody knows them', async () => {
    vm = await BackupHarness.start(disks);
    await writes();
    await vm.run();
    await vm.at.vm.quit();
    expect((await vm.run('--require', 'filesystem')).error.code).toBe('E_BELOW_REQUIRED');
    const elsewhere = vm.at.folder.path('elsewhere');
    const unknown = await vm.at.bridge(['backup', 'run', '--to', elsewhere]);
    expect(unknown).toMatchObject({ code: 3, error: { code: 'E_MONITOR' } });
    expect(unknown.error.message).toContain('no run of the VM is here');
    expect(existsSync(elsewhere)).toBe(false);
    // Another host has not seen it run.
    const record = readFileSync(vm.at.state('vm.json'), 'utf8');
    writeFileSync(vm.at.state('vm.json'), JSON.stringify({ ...(JSON.parse(record) as object), disks: undefined }));
    expect((await vm.run()).error).toMatchObject({ code: 'E_NEWEST_UNKNOWN' });
    writeFileSync(vm.at.state('vm.json'), record);
    const { execa } = await import('execa');
    const holder = execa('sh', ['-c', 'exec sleep 60 >> "$0"', images()[0]?.file ?? ''], { reject: false });
    await expect.poll(async () => (await vm.run()).error.code, { timeout: 20_000 }).toBe('E_IN_USE');
    holder.kill();
    await holder;
    expect((await vm.run()).error.message).toBe('none');
    await expectAllGood(vm);
  });

  test('can be started as soon as its tool was killed, and is backed up again', async () => {
    vm = await BackupHarness.start(disks);
    for (let at = 0; at < 8; at++) await vm.write('data0', at + 1, at * 1024, 1024);
    const full = await vm.run();
    await vm.at.vm.quit();
    const child = vm.at.spawn(vm.words('--full', '--limit', '1'));
    const drafts = (): string[] => readdirSync(vm.stored()).filter((name) => name.startsWith('.draft-'));
    await expect.poll(drafts, { timeout: 20_000 }).toHaveLength(1);
    await new Promise((resolve) => setTimeout(resolve, 1500));
    child.kill('SIGKILL');
    await child;
    const holders = async (): Promise<unknown> => await holdersOf(images()[1]?.file ?? '');
    await expect.poll(holders, { timeout: 20_000 }).toEqual([]);
    await vm.at.start(images());
    await writes();
    expect((await vm.at.bridge(['recover'])).code).toBe(0);
    expect(drafts()).toEqual([]);
    const next = await vm.run();
    expect(next.error.message).toBe('none');
    expect(next.made.disks[1]?.base?.run).toBe(full.made.run);
    await expectAllGood(vm);
  });
});
