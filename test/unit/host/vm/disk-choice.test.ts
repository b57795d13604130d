import { describe, expect, it } from 'vitest';
import { UsageError } from '../../../../src/errors.js';
import { chooseDisks, guestRefs, sameDisk } from '../../../../src/host/vm/disk-choice.js';
import type { VmDisk } from '../../../../src/qmp/block-graph.js';

const disk = (id: string, over: Partial<VmDisk> = {}): VmDisk => ({
  device: '',
  qdev: `/machine/peripheral/${id}`,
  id,
  serial: id,
  rootNode: `node-${id}`,
  node: `node-${id}`,
  format: 'qcow2',
  file: `/img/${id}.qcow2`,
  virtualSize: 1,
  readOnly: false,
  removable: false,
  cache: { direct: false, noFlush: false },
  detectZeroes: 'off',
  backingFiles: [],
  ...over,
});
const a = disk('a');
const b = disk('b');

describe('chooseDisks', () => {
  it('takes all writable disks, and says what is left out and why', () => {
    const { qdev, ...spare } = disk('spare');
    expect(qdev).toBeDefined();
    const others = [disk('ro', { readOnly: true }), disk('cd', { removable: true }), spare, disk('system.flash1')];
    const { chosen, leftOut } = chooseDisks([a, ...others, b], []);
    expect(chosen).toEqual([a, b]);
    expect(leftOut.map(({ reason }) => reason)).toEqual([
      'read-only',
      'removable medium',
      'no device of the guest uses it',
      'firmware variables, not a disk',
    ]);
  });

  it.each(['node-b', 'b', '/img/b.qcow2', '/machine/peripheral/b'])('takes the one named %s', (name) => {
    expect(chooseDisks([a, b], [name]).chosen).toEqual([b]);
    expect(chooseDisks([a, b], [name]).leftOut).toMatchObject([{ reason: 'not named by --disk' }]);
  });

  it.each([
    ['a name that fits none', [a, b], ['c'], 'fits no disk'],
    ['a name that fits two', [a, disk('b', { serial: 'a' })], ['a'], 'fits 2 disks'],
    ['a disk that is read-only', [disk('ro', { readOnly: true })], ['ro'], 'it is read-only'],
    ['a format it cannot lay an overlay on', [disk('v', { format: 'vmdk' })], [], 'its format is vmdk'],
    ['an image that is no local file', [disk('n', { file: 'nbd://host/x' })], [], 'nbd://host/x'],
    ['nothing to cut', [disk('ro', { readOnly: true })], [], 'no writable disk'],
  ])('refuses %s', (_name, disks, named, message) => {
    expect(() => chooseDisks(disks, named)).toThrow(UsageError);
    expect(() => chooseDisks(disks, named)).toThrow(message);
  });
});

describe('guestRefs', () => {
  it('gives serial and address where they are one disk only', () => {
    const scsi = { pciAddress: '0000:00:05.0' };
    const { serial, ...nameless } = disk('x', scsi);
    expect(serial).toBe('x');
    const all = [
      disk('a', { pciAddress: '0000:00:04.0' }),
      disk('s', scsi),
      nameless,
      disk('t', { serial: 'dup' }),
      disk('u', { serial: 'dup' }),
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
  it('goes by serial if both have one, else by address', () => {
    expect(sameDisk({ serial: 'a', pciAddress: 'p' }, { serial: 'b', pciAddress: 'p' })).toBe(false);
    expect(sameDisk({ serial: 'a', pciAddress: 'p' }, { pciAddress: 'p' })).toBe(true);
    expect(sameDisk({ serial: 'a' }, { pciAddress: 'p' })).toBe(false);
  });
});
