// Backups around what else becomes of a VM: snapshot sets, commits, reverts, restarts from other images, other programs'
// bitmaps. Whatever happened in between, a run holds what the disks held at its cut.
import { existsSync } from 'node:fs';
import { afterEach, expect, test } from 'vitest';
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
const overlays = (set: string): BareDisk[] =>
  disks.map(({ name }) => ({ name, format: 'qcow2', file: vm.at.overlay(name, set) }));

let pattern = 10;
const writes = async (): Promise<void> => {
  for (const { name } of disks) await vm.write(name, pattern++, (pattern * 96) % 12_000, 96);
};
const made = async (...words: readonly string[]): Promise<string> => {
  const run = await vm.run(...words);
  expect(run.error.message).toBe('none');
  return run.made.run;
};
const kindsOf = async (run: string): Promise<unknown> => {
  const { json } = await vm.backup('show', run);
  return (json as { disks: { kind: string }[] }).disks.map(({ kind }) => kind);
};
const start = async (): Promise<string> => {
  vm = await BackupHarness.start(disks);
  await writes();
  const run = await made();
  await writes();
  return run;
};
const set = async (...words: readonly string[]): Promise<void> => {
  expect((await vm.at.bridge(['snapshot', ...words])).error.message).toBe('none');
};

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('a backup', () => {
  test('is an increment over a snapshot, on the overlay, and after the commit', async () => {
    await start();
    await set('create', '--name', 's1');
    await writes();
    const onOverlay = await made('--incremental');
    await writes();
    await made('--incremental');
    await writes();
    await set('commit', 's1');
    await writes();
    const after = await made('--incremental');
    expect(await kindsOf(onOverlay)).toEqual(['incremental', 'incremental']);
    expect(await kindsOf(after)).toEqual(['incremental', 'incremental']);
    await expectAllGood(vm);
  });

  test('is right after a revert to a cut that is older than the newest run', async () => {
    await start();
    await set('create', '--name', 's1');
    const atCut = vm.state();
    await writes();
    await made();
    await writes();
    await vm.at.vm.quit();
    await set('revert', 's1', '--yes');
    vm.became(atCut);
    await vm.at.start(overlays('s1'));
    await writes();
    await made();
    await writes();
    await made('--incremental');
    await expectAllGood(vm);
  });

  test('is right after the VM was started from its bases again', async () => {
    await start();
    await set('create', '--name', 's1');
    const atCut = vm.state();
    await writes();
    await made();
    await writes();
    await vm.at.vm.quit();
    vm.became(atCut);
    await vm.at.start(images());
    await writes();
    const run = await made();
    // What was recorded since the cut went with the overlay; since the run before it, it is in the base.
    expect(await kindsOf(run)).toEqual(['full', 'incremental']);
    await expectAllGood(vm);
  });

  test('goes on after a clean stop, a raw image excepted', async () => {
    await start();
    await vm.at.restart(images());
    await writes();
    const run = await made();
    expect(await kindsOf(run)).toEqual(['full', 'incremental']);
    await writes();
    expect(await kindsOf(await made())).toEqual(['incremental', 'incremental']);
    await expectAllGood(vm);
  });

  test('leaves bitmaps of other programs alone, and tells of them', async () => {
    await start();
    await vm.at.vm.control.execute('block-dirty-bitmap-add', { node: 'node-data0', name: 'theirs', persistent: true });
    const run = await vm.run();
    expect(run.made.disks.map(({ otherBitmaps }) => otherBitmaps)).toEqual([[], ['theirs']]);
    await expectAllGood(vm);
  });

  test('goes to two repositories, each with increments of its own', async () => {
    await start();
    const second = vm.at.folder.path('second');
    const to = ['backup', 'run', '--to', second, '--min-free', '1'];
    // A filesystem that is not mounted looks like it.
    expect(await vm.at.bridge(to)).toMatchObject({ code: 2, error: { code: 'E_REPOSITORY' } });
    expect(await vm.at.bridge([...to, '--dry-run'])).toMatchObject({ code: 2, error: { code: 'E_REPOSITORY' } });
    expect(existsSync(second)).toBe(false);
    const first = await vm.at.bridge([...to, '--init']);
    expect(first.error.message).toBe('none');
    await writes();
    const next = await vm.at.bridge([...to, '--incremental']);
    expect(next.error.message).toBe('none');
    const own = await made('--incremental');
    expect((await vm.backup('show', own)).json).toMatchObject({ number: 2 });
    await expectAllGood(vm);
  });

  test('is refused while another works on the VM, and by a folder that is no repository', async () => {
    await start();
    const work = vm.run('--full', '--limit', '2');
    await expect.poll(async () => (await vm.at.jobs()).length, { timeout: 30_000 }).toBe(2);
    expect((await vm.at.bridge(vm.words())).error.code).toBe('E_VM_BUSY');
    expect((await work).error.message).toBe('none');
    const elsewhere = await vm.at.bridge(['backup', 'run', '--to', vm.at.folder.path('images')]);
    expect(elsewhere).toMatchObject({ code: 2, error: { code: 'E_REPOSITORY' } });
  });

  test('says in a dry run what it would copy, and changes nothing', async () => {
    const full = await start();
    const dry = await vm.at.bridge(vm.words('--dry-run'));
    expect(dry).toMatchObject({
      code: 0,
      json: { disks: [{ kind: 'incremental', base: full }, { bytes: 2 * 65_536 }] },
    });
    expect(await vm.listed()).toEqual([full]);
    expect(await vm.at.text(vm.words('--dry-run'))).toContain('a backup would copy at most');
  });

  test('is compressed, and restores the same', async () => {
    await start();
    await writes();
    const full = await made('--full', '--compress', 'zstd');
    await writes();
    await made('--incremental', '--compress', 'zstd');
    await expectAllGood(vm);
    expect(await vm.differencesByHand(full)).toEqual([]);
  });
});
