// Backups of disks whose data lies in a raw file, as it is or behind a qcow2: their bitmaps last as long as QEMU runs.
import { copyFileSync, readFileSync, rmSync } from 'node:fs';
import { basename } from 'node:path';
import { execa } from 'execa';
import { afterEach, describe, expect, test } from 'vitest';
import { BackupHarness, type BackupRun } from '../support/backup-harness.js';
import { dataFile, type BareDisk } from '../support/bare-qemu.js';
import { expectAllGood } from '../support/expect-all-good.js';
import { requires } from '../support/requires.js';

let vm: BackupHarness;
afterEach(async () => {
  await vm[Symbol.asyncDispose]();
});
const image = (name: string): string => vm.path(`images/${name}`);
let pattern = 1;
const writes = async (disk: string): Promise<void> => {
  await vm.write(disk, pattern++ % 256, (pattern % 60) * 192, 100);
};
const made = async (...words: readonly string[]): Promise<BackupRun['made']> => {
  const run = await vm.run(...words);
  expect(run.error.message).toBe('none');
  return run.made;
};

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('a disk in a raw file', () => {
  describe('behind a qcow2', () => {
    const disk: BareDisk = { name: 'data0', format: 'qcow2', dataApart: true, discard: true };
    const again = (): BareDisk => ({ ...disk, file: image('data0.qcow2') });
    const data = (): string => dataFile(image('data0.qcow2'));
    const inFull = { kind: 'full', why: expect.stringContaining('QEMU was started anew') as string };
    const restored = async (run: string) =>
      await vm.at.bridge(['backup', 'restore', run, '--in-place', '--yes', '--repo', vm.repository]);
    const set = async (...words: readonly string[]): Promise<void> => {
      expect((await vm.at.bridge(['snapshot', ...words])).error.message).toBe('none');
    };

    test('is backed up by increments as long as its QEMU runs, and in full by another one', async () => {
      vm = await BackupHarness.start([disk]);
      await vm.write('data0', 1, 0, 4096);
      const dry = (await vm.at.bridge(vm.words('--dry-run'))).json as { disks: { bytes: number }[] };
      const full = await made();
      // The qcow2 does not say where the raw file has holes.
      expect(dry.disks[0]?.bytes).toBeLessThan(6 * 1024 * 1024);
      expect(full.disks[0]?.file.size).toBeLessThan(6 * 1024 * 1024);
      await writes('data0');
      await vm.discard('data0', 1024, 512);
      await vm.zero('data0', 2048, 128);
      const next = await made('--incremental');
      expect(next.disks[0]?.base?.run).toBe(full.run);
      await set('create', '--name', 's1');
      await writes('data0');
      await made();
      await set('commit', 's1');
      await writes('data0');
      await made();
      await vm.at.vm.quit();
      expect((await made()).disks[0]).toMatchObject(inFull);
      await vm.at.start([again()]);
      await writes('data0');
      expect((await made()).disks[0]).toMatchObject(inFull);
      await writes('data0');
      await made('--incremental');
      await vm.at.vm.quit();
      await expectAllGood(vm);
      expect((await restored(full.run)).error.message).toBe('none');
      vm.became(vm.states.get(full.run) ?? new Map<string, Buffer>());
      expect(readFileSync(data()).equals(vm.state().get('data0') ?? Buffer.alloc(0))).toBe(true);
    });

    test('is copied in full when somebody wrote to the raw file while QEMU was not there', async () => {
      vm = await BackupHarness.start([disk]);
      await writes('data0');
      await made();
      await vm.at.vm.quit();
      await vm.at.start([{ ...disk, format: 'raw', dataApart: false, file: data() }]);
      await writes('data0');
      await made();
      await vm.at.vm.quit();
      await vm.at.start([again()]);
      await writes('data0');
      expect((await made()).disks[0]).toMatchObject(inFull);
      await expectAllGood(vm);
    });

    test('is left alone while its data is in use, and where a relative name says where it lies', async () => {
      vm = await BackupHarness.start([disk]);
      await writes('data0');
      const full = await made();
      await vm.at.vm.quit();
      const holder = execa('sh', ['-c', 'exec sleep 60 >> "$0"', data()], { reject: false });
      try {
        await expect.poll(async () => (await vm.run()).error.code, { timeout: 20_000 }).toBe('E_IN_USE');
        expect((await restored(full.run)).error).toMatchObject({ code: 'E_IN_USE' });
      } finally {
        holder.kill();
        await holder;
      }
      // Another image that has its data there.
      const other = image('other.qcow2');
      const front = ['-o', `data_file=${image('scratch')}`, '-o', 'data_file_raw=on'];
      await execa('qemu-img', ['create', '-q', '-f', 'qcow2', ...front, other, '16M']);
      await execa('qemu-img', ['amend', '-f', 'qcow2', '-o', `data_file=${data()}`, other]);
      const named = await restored(full.run);
      expect(named.error).toMatchObject({ code: 'E_IN_USE' });
      expect(named.error.message).toContain(`${other} has its data in it`);
      rmSync(other);

      const amend = ['amend', '-f', 'qcow2', '-o', `data_file=images/${basename(data())}`, image('data0.qcow2')];
      await execa('qemu-img', amend, { cwd: vm.at.folder.dir });
      for (const refused of [await vm.run(), await vm.at.bridge(vm.words('--dry-run')), await restored(full.run)]) {
        expect(refused.error).toMatchObject({ code: 'E_NO_IMAGE' });
        expect(refused.error.message).toContain('qemu-img amend');
      }
      // QEMU runs where the name begins.
      await vm.at.start([again()]);
      await writes('data0');
      await made();
      await writes('data0');
      await made('--incremental');
      await expectAllGood(vm);
    });
  });

  describe('as it is', () => {
    const disk: BareDisk = { name: 'root0', format: 'raw' };
    const raw = (): BareDisk => ({ ...disk, file: image('root0.raw') });

    test('is backed up by increments as long as its QEMU runs', async () => {
      vm = await BackupHarness.start([disk]);
      await writes('root0');
      await made();
      await writes('root0');
      await made('--incremental');
      await vm.at.restart([raw()]);
      await writes('root0');
      expect((await made()).disks[0]).toMatchObject({
        kind: 'full',
        why: expect.stringContaining('started anew') as string,
      });
      await writes('root0');
      await made('--incremental');
      await expectAllGood(vm);
    });

    test('is copied in full once QEMU has sent the VM elsewhere, and where another file was put below its bitmaps', async () => {
      vm = await BackupHarness.start([disk]);
      const { control } = vm.at.vm;
      await writes('root0');
      await made();
      await control.execute('migrate', { uri: 'exec:cat >/dev/null' });
      await expect.poll(async () => await control.execute('query-migrate')).toMatchObject({ status: 'completed' });
      await control.execute('cont');
      await writes('root0');
      const sent = await made();
      expect(sent.disks[0]).toMatchObject({ kind: 'full', why: expect.stringContaining('sent the VM') as string });
      await vm.at.restart([raw()]);
      await writes('root0');
      await made();
      copyFileSync(image('root0.raw'), image('other.raw'));
      const below = { driver: 'file', 'node-name': 'other', filename: image('other.raw') };
      await vm.at.vm.control.execute('blockdev-add', below);
      const options = [{ driver: 'raw', 'node-name': 'node-root0', file: 'other' }];
      await vm.at.vm.control.execute('blockdev-reopen', { options });
      await writes('root0');
      const other = await made();
      expect(other.disks[0]).toMatchObject({ kind: 'full', why: expect.stringContaining('none of theirs') as string });
      await writes('root0');
      await made('--incremental');
      await expectAllGood(vm);
    });
  });
});
