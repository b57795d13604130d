// A VM is its UUID: whatever it is called and however it is reached, its sets are the same; and what merely has its name, or
// sits at its socket, is another one.
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { imagePath, type BareDisk } from '../support/bare-qemu.js';
import { CutHarness, type Run } from '../support/cut-harness.js';
import { requires } from '../support/requires.js';

const disks: readonly BareDisk[] = [{ name: 'root0', format: 'raw' }];
const other = 'aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee';
const none = '00000000-0000-0000-0000-000000000000';
let at: CutHarness;
const second = (): string[] => ['-qmp', `unix:${at.folder.path('second.sock')},server=on,wait=off`];
beforeEach(async () => {
  at = await CutHarness.start(disks);
  await at.restart(disks, second());
});
afterEach(async () => {
  await at[Symbol.asyncDispose]();
});

const uuid = (): string => basename(at.state());
const sets = (run: Run): unknown => (run.json['sets'] as { set: string }[] | undefined)?.map(({ set }) => set);
const configure = (vms: object): string[] => {
  writeFileSync(at.folder.path('vms.json'), JSON.stringify({ vms }));
  return ['--config', at.folder.path('vms.json')];
};

requires('qemu-system-x86_64', 'qemu-img')('a VM', () => {
  describe('is one', () => {
    test('under each of its names, and at each of its monitors', async () => {
      expect((await at.create('s1')).error.message).toBe('none');
      const config = configure({ db1: { qmp: at.folder.path('second.sock') } });
      symlinkSync(at.vm.qmp, at.folder.path('link.sock'));
      const ways = [
        ['--vm', 'bare', '--qmp', at.vm.qmp],
        ['--vm', 'db1', ...config],
        ['--qmp', at.folder.path('link.sock')],
        ['--vm', 'whatever', '--qmp', at.folder.path('second.sock')],
        ['--vm', uuid()],
        ['--vm', 'bare'],
      ];
      for (const way of ways) expect(sets(await at.tool('snapshot', 'list', ...way)), way.join(' ')).toEqual(['s1']);
      expect((await at.tool('snapshot', 'commit', 's1', '--vm', 'db1', ...config)).error.message).toBe('none');
      expect(await at.bridge(['snapshot', 'show', 's1'])).toMatchObject({ manifest: { state: 'committed' } });
      expect(readdirSync(at.folder.path('state'))).toEqual([uuid()]);
    });

    test('when it is shut off, by the names and sockets it was reached by', async () => {
      expect((await at.create('s1')).code).toBe(0);
      expect(
        (await at.tool('snapshot', 'delete', 'no', '--vm', 'alias', '--qmp', at.folder.path('second.sock'))).code,
      ).toBe(2);
      await at.vm.quit();
      for (const way of [
        ['--vm', 'bare'],
        ['--vm', 'alias'],
        ['--vm', uuid()],
        ['--vm', uuid().toUpperCase()],
        ['--qmp', at.vm.qmp],
        ['--qmp', at.folder.path('second.sock')],
      ]) {
        expect(sets(await at.tool('snapshot', 'list', ...way)), way.join(' ')).toEqual(['s1']);
      }
      expect(await at.tool('snapshot', 'delete', 's1', '--yes', '--vm', 'alias')).toMatchObject({ code: 0 });
      expect(at.images()).toEqual(['root0.raw']);
    });

    test('which `status` names', async () => {
      const identity = { kind: 'uuid', uuid: uuid() };
      expect((await at.bridge(['status'])).json['monitor']).toMatchObject({ identity });
    });

    test('that is not there is no VM: nothing is written down of it', async () => {
      const run = await at.tool(
        'snapshot',
        'delete',
        's1',
        '--yes',
        '--vm',
        'typo',
        '--qmp',
        at.folder.path('no.sock'),
      );
      expect(run).toMatchObject({ code: 2, error: { code: 'E_NO_SET' } });
      expect((await at.tool('recover', '--qmp', at.folder.path('no.sock'))).code).toBe(0);
      expect(existsSync(at.folder.path('state'))).toBe(false);
    });
  });

  describe('made anew under the name and the sockets of another', () => {
    beforeEach(async () => {
      expect((await at.create('s1')).code).toBe(0);
      await at.restart(
        disks.map((disk) => ({ ...disk, file: imagePath(at.folder, disk) })),
        ['-uuid', other],
      );
    });

    test('does not get its sets, and is told whose they are', async () => {
      expect(sets(await at.bridge(['snapshot', 'list']))).toEqual([]);
      for (const words of [['show'], ['commit'], ['delete', '--yes']]) {
        const [command = '', ...rest] = words;
        const run = await at.bridge(['snapshot', command, 's1', ...rest]);
        expect(run, command).toMatchObject({ code: 2, error: { code: 'E_NO_SET' } });
        expect(run.error.message).toContain(`another VM that was reached as bare before has one: --vm ${uuid()}`);
      }
      expect(sets(await at.tool('snapshot', 'list', '--vm', uuid()))).toEqual(['s1']);
    });

    test('is not taken for it when that one is named', async () => {
      const run = await at.tool('snapshot', 'commit', 's1', '--vm', uuid());
      expect(run).toMatchObject({ code: 2, error: { code: 'E_OTHER_VM' } });
      expect(run.error.message).toContain(`expected UUID ${uuid()}, found UUID ${other}`);
    });

    test('has sets of its own; shut off, the name says not which of the two is meant', async () => {
      expect((await at.create('s2')).error.message).toBe('none');
      await at.vm.quit();
      const run = await at.bridge(['snapshot', 'delete', 's2', '--yes']);
      expect(run).toMatchObject({ code: 2, error: { code: 'E_VM_AMBIGUOUS' } });
      expect(run.error.message).toContain(uuid());
      expect(run.error.message).toContain(other);
      expect(sets(await at.tool('snapshot', 'list', '--vm', other))).toEqual(['s2']);
      expect(sets(await at.tool('snapshot', 'list', '--vm', uuid()))).toEqual(['s1']);
    });
  });

  describe('without a UUID', () => {
    test('is its monitor, and that is said', async () => {
      await at.restart(disks, ['-uuid', none]);
      const run = await at.create('s1');
      expect(run).toMatchObject({ code: 0 });
      const identity = { kind: 'address', address: at.vm.qmp };
      expect((await at.bridge(['status'])).json['monitor']).toMatchObject({ identity });
      const [key = ''] = readdirSync(at.folder.path('state'));
      expect(key).toMatch(/^at-.*qmp\.sock-[0-9a-f]{8}$/);
      await at.vm.quit();
      for (const way of [
        ['--vm', 'bare'],
        ['--qmp', at.vm.qmp],
        ['--vm', key],
      ]) {
        expect(sets(await at.tool('snapshot', 'list', ...way)), way.join(' ')).toEqual(['s1']);
      }
    });
  });

  describe('of which an older version made sets, in a folder of its name', () => {
    beforeEach(async () => {
      expect((await at.create('s1')).code).toBe(0);
      mkdirSync(at.folder.path('state/bare'));
      renameSync(at.state('s1'), at.folder.path('state/bare/s1'));
      rmSync(at.state(), { recursive: true });
    });

    test('finds them, and moves them when it is first changed', async () => {
      expect(sets(await at.bridge(['snapshot', 'list']))).toEqual(['s1']);
      expect(await at.bridge(['snapshot', 'show', 's1'])).toMatchObject({ manifest: { state: 'cut' } });
      expect((await at.bridge(['recover', '--dry-run'])).code).toBe(0);
      expect(readdirSync(at.folder.path('state'))).toEqual(['bare']);
      expect((await at.bridge(['snapshot', 'commit', 's1'])).error.message).toBe('none');
      expect(readdirSync(at.folder.path('state'))).toEqual([uuid()]);
      expect(at.images()).toEqual(['root0.raw']);
    });

    test('finds them when it is shut off, too', async () => {
      await at.vm.quit();
      for (const way of [
        ['--vm', 'bare'],
        ['--qmp', at.vm.qmp],
        ['--vm', uuid()],
      ]) {
        expect(sets(await at.tool('snapshot', 'list', ...way)), way.join(' ')).toEqual(['s1']);
      }
      expect(await at.tool('snapshot', 'delete', 's1', '--yes', '--vm', 'bare')).toMatchObject({ code: 0 });
      expect(readdirSync(at.state())).toEqual(['vm.json']);
    });
  });
});
