import { writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { chooseVm } from '../../../src/host/vm.js';
import { scratch, type Scratch } from '../../support/scratch.js';

let folder: Scratch;
let config: string;
beforeEach(() => {
  folder = scratch();
  config = folder.path('vms.json');
});
afterEach(() => {
  folder[Symbol.dispose]();
});
const write = (value: unknown): void => {
  writeFileSync(config, typeof value === 'string' ? value : JSON.stringify(value));
};

describe('chooseVm', () => {
  it('takes sockets without a configuration, and names the VM after them', async () => {
    const vm = await chooseVm({ qmp: '/run/vm 1/qmp.sock', qga: '/run/vm 1/qga.sock', config });
    expect(vm).toEqual({ name: 'run-vm-1-qmp.sock', qmp: '/run/vm 1/qmp.sock', qga: '/run/vm 1/qga.sock' });
    expect((await chooseVm({ vm: 'db1', qmp: '/q', config })).name).toBe('db1');
  });

  it('reads an entry; paths given win', async () => {
    write({ vms: { db1: { qmp: '/q', qga: '/g', overlayDir: '/o' } } });
    expect(await chooseVm({ vm: 'db1', config })).toEqual({ name: 'db1', qmp: '/q', qga: '/g', overlayDir: '/o' });
    expect(await chooseVm({ vm: 'db1', qga: '/h', config })).toMatchObject({ qga: '/h' });
  });

  it.each([
    [{ vms: { db1: { qmp: '/q', qag: '/g' } } }, 'qag'],
    [{ vms: { db1: { qmp: 'q' } } }, 'expected an absolute path'],
    [{ vms: { '../x': { qmp: '/q' } } }, 'expected letters'],
    [{}, 'vms'],
    ['{', 'cannot read configuration'],
  ])('refuses the configuration %j', async (value, message) => {
    write(value);
    await expect(chooseVm({ vm: 'db1', config })).rejects.toThrow(message);
  });

  it('says which VMs there are, and does not take __proto__ for one', async () => {
    write({ vms: { db1: { qmp: '/q' }, web: { qmp: '/w' } } });
    await expect(chooseVm({ vm: 'db2', config })).rejects.toThrow('there: db1, web');
    await expect(chooseVm({ vm: 'constructor', config })).rejects.toThrow('no VM "constructor"');
    await expect(chooseVm({ config })).rejects.toThrow('which VM?');
  });
});
