import { writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { placeText } from '../../../../src/host/vm/place.js';
import { chooseVm, shownVm, type Vm, type VmChoice } from '../../../../src/host/vm/vm.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

let folder: Scratch;
let config: string;
beforeEach(() => {
  folder = scratch();
  config = folder.path('vms.json');
});
afterEach(() => {
  folder[Symbol.dispose]();
});
const shown = async (choice: VmChoice): Promise<object> => shownVm(await chooseVm(choice));
const write = (value: unknown): void => {
  writeFileSync(config, typeof value === 'string' ? value : JSON.stringify(value));
};

describe('chooseVm', () => {
  test('takes sockets without a configuration, and names the VM after them', async () => {
    const vm = await chooseVm({ qmp: '/run/vm 1/qmp.sock', qga: '/run/vm 1/qga.sock', config });
    expect(shownVm(vm)).toEqual({ name: 'run-vm-1-qmp.sock', qmp: '/run/vm 1/qmp.sock', qga: '/run/vm 1/qga.sock' });
    expect((await chooseVm({ vm: 'db1', qmp: '/q', config })).name).toBe('db1');
  });

  test('reads an entry; paths given win', async () => {
    write({ vms: { db1: { qmp: '/q', qga: '/g', overlayDir: '/o' } } });
    expect(await shown({ vm: 'db1', config })).toEqual({ name: 'db1', qmp: '/q', qga: '/g', overlayDir: '/o' });
    expect(await shown({ vm: 'db1', qga: '/h', config })).toMatchObject({ qga: '/h' });
  });

  test.each([
    [{ vms: { db1: { qmp: '/q', qag: '/g' } } }, 'qag'],
    [{ vms: { db1: { qmp: 'q' } } }, 'expected an absolute path'],
    [{ vms: { db1: { qga: '/g' } } }, 'expected either libvirt'],
    [{ vms: { db1: { libvirt: 'db1', qmp: '/q' } } }, 'expected either libvirt'],
    [{ vms: { db1: { libvirt: '' } } }, 'expected the name of a domain'],
    [{ vms: { '../x': { qmp: '/q' } } }, 'expected letters'],
    [{}, 'vms'],
    ['{', 'cannot read configuration'],
  ])('refuses the configuration %j', async (value, message) => {
    write(value);
    await expect(chooseVm({ vm: 'db1', config })).rejects.toThrow(message);
  });

  test('takes a libvirt domain from the command line, and from an entry', async () => {
    expect(await shown({ vm: 'libvirt:win 10', config })).toEqual({
      name: 'win-10',
      qmp: 'libvirt:win 10',
      qga: 'libvirt:win 10',
    });
    write({ vms: { db1: { libvirt: 'guest', connect: 'qemu:///session', overlayDir: '/o' } } });
    const where = 'libvirt:guest?connect=qemu%3A%2F%2F%2Fsession';
    expect(await shown({ vm: 'db1', config })).toEqual({ name: 'db1', qmp: where, qga: where, overlayDir: '/o' });
    expect(await shown({ vm: 'libvirt:guest', connect: 'qemu:///session', config })).toMatchObject({ qmp: where });
  });

  test.each([
    [{ vm: 'libvirt:', connect: undefined }, 'expected the name of a domain'],
    [{ vm: 'libvirt:x', qmp: '/q' }, 'needs no --qmp'],
    [{ vm: 'x', connect: 'qemu:///system' }, '--connect needs a domain'],
  ])('refuses %j', async (choice, message) => {
    await expect(chooseVm({ ...choice, config })).rejects.toThrow(message);
  });

  test('says which VMs there are, and does not take __proto__ for one', async () => {
    write({ vms: { db1: { qmp: '/q' }, web: { qmp: '/w' } } });
    await expect(chooseVm({ vm: 'db2', config })).rejects.toThrow('there: db1, web');
    await expect(chooseVm({ vm: 'constructor', config })).rejects.toThrow('no VM "constructor"');
    await expect(chooseVm({ config })).rejects.toThrow('which VM?');
  });

  test('keeps the order of what is shown, also of a recorded VM that is given another agent', async () => {
    const { monitor } = await chooseVm({ qmp: '/q', config });
    const uuid = '11111111-2222-3333-4444-555555555555';
    const known: Vm = { name: 'db1', monitor, identity: { kind: 'uuid', uuid } };
    const choice = { vm: 'db1', qga: '/g', overlayDir: '/o', config, recorded: () => Promise.resolve(known) };
    expect(JSON.stringify(await shown(choice))).toBe(
      `{"name":"db1","qmp":"/q","identity":{"kind":"uuid","uuid":"${uuid}"},"qga":"/g","overlayDir":"/o"}`,
    );
  });

  test('takes an agent that is given for a domain of the configuration', async () => {
    write({ vms: { db1: { libvirt: 'guest' } } });
    const { monitor, agent } = await chooseVm({ vm: 'db1', qga: '/g', config });
    expect(monitor.kind).toBe('libvirt');
    expect(agent && placeText(agent)).toBe('/g');
  });
});
