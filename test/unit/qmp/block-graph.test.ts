import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readDisks } from '../../../src/qmp/block-graph.js';
import { QmpClient } from '../../../src/qmp/client.js';
import { FakeMonitor, Refusal } from '../../support/fake-monitor.js';
import { scratch, type Scratch } from '../../support/scratch.js';

let folder: Scratch;
let fake: FakeMonitor;
let client: QmpClient;

const node = (name: string, drv: string, file: string, over: object = {}): object => ({
  'node-name': name,
  drv,
  ro: false,
  file,
  detect_zeroes: 'off',
  cache: { writeback: true, direct: false, 'no-flush': false },
  image: { filename: file, format: drv, 'virtual-size': 1024 },
  ...over,
});
const top = node('top', 'throttle', '/img/a.qcow2');
const format = node('fmt', 'qcow2', '/img/a.qcow2', {
  image: { filename: '/img/a.qcow2', format: 'qcow2', 'virtual-size': 1024 },
});

/** Properties of QEMU's object tree, `path property` -> value. */
let tree: Record<string, unknown>;
let devices: object[];
let nodes: object[];
beforeEach(async () => {
  folder = scratch();
  tree = {};
  devices = [];
  nodes = [];
  fake = await FakeMonitor.listen(folder.path('qmp.sock'), {
    handlers: {
      'query-block': () => devices,
      'query-named-block-nodes': () => nodes,
      'qom-get': ({ arguments: args }) => {
        const key = `${String(args?.['path'])} ${String(args?.['property'])}`;
        if (!Object.hasOwn(tree, key)) throw new Refusal(`Property '${key}' not found`);
        return tree[key];
      },
      'query-pci': () => [
        {
          bus: 0,
          devices: [
            {
              bus: 0,
              slot: 2,
              function: 0,
              pci_bridge: { bus: { secondary: 5 }, devices: [{ bus: 5, slot: 0, function: 0 }] },
            },
            { bus: 0, slot: 3, function: 0 },
          ],
        },
      ],
    },
  });
  client = await QmpClient.connect(fake.path);
});
afterEach(async () => {
  client.close();
  await fake[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

const device = (inserted: object, over: object = {}): object => ({ device: '', removable: false, inserted, ...over });

describe('readDisks', () => {
  test('reads serial and address of a virtio disk, the serial cut as the guest sees it', async () => {
    tree = {
      '/machine/peripheral/vd0/virtio-backend serial': 'a-serial-longer-than-twenty-bytes',
      '/machine/peripheral/vd0/virtio-backend parent_bus': '/machine/peripheral/vd0/virtio-bus',
      '/machine/peripheral/vd0 addr': 33,
      '/machine/peripheral/vd0 parent_bus': '/machine/q35/pcie.0',
    };
    devices = [device(node('n', 'raw', '/img/r'), { qdev: '/machine/peripheral/vd0/virtio-backend' })];
    expect(await readDisks(client)).toMatchObject([
      {
        id: 'vd0',
        serial: 'a-serial-longer-than',
        pciAddress: '0000:00:04.1',
        node: 'n',
        format: 'raw',
        virtualSize: 1024,
      },
    ]);
  });

  test('finds the bus behind a PCIe port', async () => {
    tree = {
      '/machine/peripheral/vd1 addr': 0,
      '/machine/peripheral/vd1 parent_bus': '/machine/peripheral/port/port',
      '/machine/peripheral/port addr': 16,
      '/machine/peripheral/port parent_bus': '/machine/q35/pcie.0',
    };
    devices = [device(node('n', 'raw', '/img/r'), { qdev: 'vd1' })];
    expect(await readDisks(client)).toMatchObject([{ id: 'vd1', pciAddress: '0000:05:00.0' }]);
  });

  test('gives a SCSI disk the address of its controller', async () => {
    tree = {
      '/machine/peripheral/sd0 serial': 'S',
      '/machine/peripheral/sd0 parent_bus': '/machine/peripheral/hba/virtio-backend/hba.0',
      '/machine/peripheral/hba addr': 24,
      '/machine/peripheral/hba parent_bus': '/machine/q35/pcie.0',
    };
    devices = [device(node('n', 'raw', '/img/r'), { qdev: 'sd0' })];
    expect(await readDisks(client)).toMatchObject([{ id: 'sd0', serial: 'S', pciAddress: '0000:00:03.0' }]);
  });

  test('follows a filter to the format node, by the debug graph or, since 10.1, by the children', async () => {
    devices = [device(top)];
    nodes = [top, format];
    let known = ['x-debug-query-block-graph'];
    fake.handlers['query-qmp-schema'] = () => known.map((name) => ({ name, 'meta-type': 'command' }));
    fake.handlers['x-debug-query-block-graph'] = () => ({
      nodes: [
        { id: 1, type: 'block-driver', name: 'top' },
        { id: 2, type: 'block-driver', name: 'fmt' },
      ],
      edges: [{ parent: 1, child: 2, name: 'file' }],
    });
    expect(await readDisks(client)).toMatchObject([{ rootNode: 'top', node: 'fmt', format: 'qcow2' }]);
    known = [];
    expect(await readDisks(client)).toMatchObject([
      { trouble: 'this QEMU does not tell what lies below a filter node' },
    ]);
    nodes = [{ ...top, children: [{ child: 'file', 'node-name': 'fmt' }] }, format];
    delete fake.handlers['x-debug-query-block-graph'];
    expect(await readDisks(client)).toMatchObject([{ rootNode: 'top', node: 'fmt' }]);
  });

  test('says what is wrong with a disk that has no format node, be it one that turns in circles, and reads the others', async () => {
    devices = [device(top), device(format), device(node('many', 'quorum', 'json:{"driver":"quorum"}'))];
    nodes = [{ ...top, children: [{ child: 'file', 'node-name': 'top' }] }];
    const disks = await readDisks(client);
    expect(disks.map(({ node: name, trouble }) => [name, trouble])).toEqual([
      ['top', "cannot find the format node below top in the VM's block graph"],
      ['fmt', undefined],
      ['many', 'it is several images in one (quorum)'],
    ]);
  });

  test('knows what is passed through and what others may write to', async () => {
    tree = { '/machine/peripheral/sg0 type': 'scsi-generic', '/machine/peripheral/sg0 share-rw': true };
    devices = [device(node('n', 'host_device', '/dev/sg0'), { qdev: 'sg0' })];
    expect(await readDisks(client)).toMatchObject([{ model: 'scsi-generic', shared: true, format: 'raw' }]);
  });

  test('reads chain, data files and encryption, below a filter too', async () => {
    const specific = (data: object): object => ({ 'format-specific': { type: 'qcow2', data } });
    const below = { filename: '/img/0', format: 'file', 'virtual-size': 1024 };
    const own = {
      filename: '/img/a.qcow2',
      format: 'qcow2',
      'virtual-size': 1024,
      ...specific({ 'data-file': 'a.raw', encrypt: { format: 'luks', slots: [{ active: true, iters: 1000 }] } }),
    };
    const filter = { ...top, image: { filename: 'json:{}', format: 'throttle', 'virtual-size': 1024 } };
    devices = [device({ ...filter, image: { ...filter.image, 'backing-image': { ...own, 'backing-image': below } } })];
    nodes = [
      { ...top, children: [{ child: 'file', 'node-name': 'fmt' }] },
      { ...format, image: own },
    ];
    expect(await readDisks(client)).toMatchObject([
      {
        below: [{ file: '/img/0', format: 'raw' }],
        dataFiles: ['a.raw'],
        encryption: { format: 'luks', iterations: 1000 },
      },
    ]);
  });

  test('lists what lies below, and leaves out drives without a medium', async () => {
    const chain = node('n', 'qcow2', '/img/2', {
      image: {
        filename: '/img/2',
        format: 'qcow2',
        'virtual-size': 1024,
        'backing-image': {
          filename: '/img/1',
          format: 'qcow2',
          'backing-image': { filename: '/img/0', format: 'raw' },
        },
      },
    });
    devices = [{ device: 'cd', removable: true }, device(chain, { device: 'drv' })];
    expect(await readDisks(client)).toMatchObject([{ device: 'drv', backingFiles: ['/img/1', '/img/0'] }]);
  });
});
