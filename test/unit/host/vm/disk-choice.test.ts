import { describe, expect, test } from 'vitest';
import { UsageError } from '../../../../src/errors.js';
import { chooseDisks, guestRefs, sameDisk } from '../../../../src/host/vm/disk-choice.js';
import { vmDisk } from '../../../support/vm-disks.js';

const a = vmDisk('a');
const b = vmDisk('b');

describe('chooseDisks', () => {
  test('takes all writable disks, and says what is left out and why', () => {
    const { qdev, ...spare } = vmDisk('spare');
    expect(qdev).toBeDefined();
    const others = [
      vmDisk('ro', { readOnly: true }),
      vmDisk('cd', { removable: true }),
      spare,
      vmDisk('system.flash1'),
    ];
    const { chosen, leftOut } = chooseDisks([a, ...others, b], []);
    expect(chosen).toEqual([a, b]);
    expect(leftOut.map(({ reason }) => reason)).toEqual([
      'read-only',
      'removable medium',
      'no device of the guest uses it',
      'firmware variables, not a disk',
    ]);
  });

  test('leaves out what cannot be cut, with its reason, and tells what is missing', () => {
    const secret = vmDisk('secret');
    const disks = [
      a,
      vmDisk('quorum', { trouble: 'it is several images in one (quorum)' }),
      vmDisk('shared', { shared: true }),
      vmDisk('sg', { model: 'scsi-generic', format: 'raw' }),
      vmDisk('net', { file: 'rbd:pool/x', name: 'rbd:pool/x' }),
      vmDisk('vmdk', { format: 'vmdk' }),
      vmDisk('relative', { file: 'x.raw', name: 'x.raw' }),
      secret,
      vmDisk('ro', { readOnly: true, shared: true }),
    ];
    const refusals = new Map([[secret, 'its overlay would hold clear text']]);
    const outside = [
      { id: 'vub0', type: 'vhost-user-blk-pci', kind: 'disk' },
      { id: 'fs0', type: 'vhost-user-fs-pci', kind: 'folder' },
    ] as const;
    const choice = chooseDisks(disks, [], { refusals, outside });
    expect(choice.chosen).toEqual([a]);
    expect(choice.missing.map(({ reason }) => reason)).toEqual([
      'it is several images in one (quorum)',
      expect.stringContaining('share-rw'),
      'it is passed through to the guest (scsi-generic)',
      'its image lies on the network: rbd:pool/x',
      'its format is vmdk, expected raw or qcow2',
      'its image is x.raw, expected the absolute path of a local file',
      'its overlay would hold clear text',
      expect.stringContaining('vhost'),
      'a folder of the host: it lies in no disk',
    ]);
    expect(choice.leftOut).toHaveLength(10);
    expect(choice.leftOut.find(({ what }) => what.startsWith('ro '))).toMatchObject({ reason: 'read-only' });
    // Who names disks leaves the others out on purpose.
    expect(chooseDisks(disks, ['a'], { refusals, outside }).missing).toEqual([]);
    expect(() => chooseDisks(disks, ['secret'], { refusals, outside })).toThrow('clear text');
    expect(() => chooseDisks(disks, ['fs0'], { refusals, outside })).toThrow('cannot cut fs0');
  });

  test.each(['node-b', 'b', '/img/b.qcow2', '/machine/peripheral/b'])('takes the one named %s', (name) => {
    expect(chooseDisks([a, b], [name]).chosen).toEqual([b]);
    expect(chooseDisks([a, b], [name]).leftOut).toMatchObject([{ reason: 'not named by --disk' }]);
  });

  test.each([
    ['a name that fits none', [a, b], ['c'], 'fits no disk'],
    ['a name that fits two', [a, vmDisk('b', { serial: 'a' })], ['a'], 'fits 2 disks'],
    ['a disk that is read-only', [vmDisk('ro', { readOnly: true })], ['ro'], 'it is read-only'],
    ['a format it cannot lay an overlay on', [vmDisk('v', { format: 'vmdk' })], [], 'its format is vmdk'],
    [
      'an image that is no local file',
      [vmDisk('n', { file: 'nbd://host/x', name: 'nbd://host/x' })],
      [],
      'nbd://host/x',
    ],
    ['nothing to cut', [vmDisk('ro', { readOnly: true })], [], 'no writable disk'],
  ])('refuses %s', (_name, disks, named, message) => {
    expect(() => chooseDisks(disks, named)).toThrow(UsageError);
    expect(() => chooseDisks(disks, named)).toThrow(message);
  });
});

describe('guestRefs', () => {
  test('gives serial and address where they are one disk only', () => {
    const scsi = { pciAddress: '0000:00:05.0' };
    const { serial, ...nameless } = vmDisk('x', scsi);
    expect(serial).toBe('x');
    const all = [
      vmDisk('a', { pciAddress: '0000:00:04.0' }),
      vmDisk('s', scsi),
      nameless,
      vmDisk('t', { serial: 'dup' }),
      vmDisk('u', { serial: 'dup' }),
    ];
    expect(guestRefs(all, all)).toEqual([
      { serial: 'a', pciAddress: '0000:00:04.0' },
      { serial: 's' },
      undefined,
      undefined,
      undefined,
    ]);
  });
});

describe('sameDisk', () => {
  test('goes by serial if both have one, else by address', () => {
    expect(sameDisk({ serial: 'a', pciAddress: 'p' }, { serial: 'b', pciAddress: 'p' })).toBe(false);
    expect(sameDisk({ serial: 'a', pciAddress: 'p' }, { pciAddress: 'p' })).toBe(true);
    expect(sameDisk({ serial: 'a' }, { pciAddress: 'p' })).toBe(false);
  });
});
