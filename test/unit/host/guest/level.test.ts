import { describe, expect, test } from 'vitest';
import { crashOnly, levelsOf, type CutDisk } from '../../../../src/host/guest/level.js';
import { filesystemReport, freezeReport, writerReport } from '../../../support/freeze-reports.js';

const disk = (serial: string, still?: boolean): CutDisk => ({ name: serial, ref: { serial }, still });
const root = filesystemReport('/', 'R');
const data = filesystemReport('/data', 'D');
const stuck = filesystemReport('/data', 'D', { held: 'none', reason: 'EBUSY: somebody else froze it' });
const both = [disk('R'), disk('D')];
const levels = (report: Parameters<typeof levelsOf>[0], disks = both): string[] => {
  const { level, disks: each } = levelsOf(report, disks);
  return [level, ...each.map((worth) => worth.level)];
};

describe('levelsOf', () => {
  test('gives every disk what the guest proved', () => {
    const filesystems = [root, data];
    expect(levels(freezeReport({ filesystems }))).toEqual(['filesystem', 'filesystem', 'filesystem']);
    const application = freezeReport({ filesystems, level: 'application', writers: [writerReport('50-db')] });
    expect(levels(application)).toEqual(['application', 'application', 'application']);
  });

  test('lowers only the disk whose filesystem was not held', () => {
    expect(levels(freezeReport({ filesystems: [root, stuck], level: 'crash' }))).toEqual([
      'crash',
      'filesystem',
      'crash',
    ]);
  });

  test('never takes the level of the whole for more than the disks prove', () => {
    // A guest that forgot its own EBUSY.
    expect(levels(freezeReport({ filesystems: [root, stuck], level: 'application' }))).toEqual([
      'crash',
      'application',
      'crash',
    ]);
  });

  test('never takes a disk for more than the whole without the full record of its filesystems', () => {
    const { freeze, thaw, ...bare } = root;
    expect(freeze).not.toEqual(thaw);
    expect(levels(freezeReport({ filesystems: [bare, stuck], level: 'crash' }))).toEqual(['crash', 'crash', 'crash']);
    const failed = filesystemReport('/', 'R', { thawErrno: 22 });
    expect(levels(freezeReport({ filesystems: [failed, stuck], level: 'crash' }))).toEqual(['crash', 'crash', 'crash']);
  });

  test.each(['expired', 'broken', 'failed'] as const)('calls a hold that ended %s a crash', (outcome) => {
    const report = freezeReport({ filesystems: [root, data], outcome, level: 'none', error: 'thawed after 10 s' });
    expect(levels(report)).toEqual(['crash', 'crash', 'crash']);
    expect(levelsOf(report, both).evidence.join()).toContain('thawed after 10 s');
  });

  test('calls a hold whose end is not known a crash', () => {
    expect(levels(freezeReport({ filesystems: [root, data], state: 'frozen' }))).toEqual(['crash', 'crash', 'crash']);
  });

  test('counts a disk without a filesystem only if nothing was written to it', () => {
    const report = freezeReport({ filesystems: [root] });
    expect(levels(report, [disk('R'), disk('S', true)])).toEqual(['filesystem', 'filesystem', 'filesystem']);
    expect(levels(report, [disk('R'), disk('S', false)])).toEqual(['crash', 'filesystem', 'crash']);
    expect(levels(report, [disk('R'), disk('S')])).toEqual(['crash', 'filesystem', 'crash']);
  });

  describe('does not count as held what no kernel can freeze', () => {
    const over = { type: 'vfat', held: 'none', reason: 'vfat cannot be frozen', freezeErrno: 95 } as const;
    const efi = filesystemReport('/boot/efi', 'R', over);
    const cards = filesystemReport('/cards', 'D', over);

    test('and takes nothing away for a boot loader beside what was held', () => {
      const report = freezeReport({ filesystems: [root, efi] });
      expect(levels(report, [disk('R', false)])).toEqual(['filesystem', 'filesystem']);
      expect(levelsOf(report, [disk('R', false)]).disks[0]?.evidence.join()).toContain('is not counted');
      // Alone on its disk nothing was held there; and a guest that saw it being written vouches for less.
      expect(levels(freezeReport({ filesystems: [efi] }), [disk('R', false)])).toEqual(['crash', 'crash']);
      expect(levels(freezeReport({ filesystems: [root, efi], level: 'crash' }), [disk('R', false)])).toEqual([
        'crash',
        'crash',
      ]);
    });

    test('and lets the write counters of the host prove more', () => {
      const report = freezeReport({ filesystems: [root, cards] });
      expect(levels(report, [disk('R'), disk('D', true)])).toEqual(['filesystem', 'filesystem', 'filesystem']);
      expect(levels(report, [disk('R'), disk('D', false)])).toEqual(['crash', 'filesystem', 'crash']);
      expect(levels(report, [disk('R'), disk('D')])).toEqual(['crash', 'filesystem', 'crash']);
    });
  });

  test('lets a filesystem on unknown disks count for every disk', () => {
    const lost = filesystemReport('/iscsi', 'X', { disks: [], held: 'none', reason: 'not supported' });
    expect(levels(freezeReport({ filesystems: [root, data, lost] }))).toEqual(['crash', 'crash', 'crash']);
  });

  describe('for a disk that cannot be told from another', () => {
    const pciAddress = '0000:00:05.0';
    const nameless = (still?: boolean): CutDisk => ({ name: 'x', ref: undefined, still, pciAddress, sharers: 2 });
    const on = (mountpoint: string, dev: string) => filesystemReport(mountpoint, '', { disks: [{ pciAddress, dev }] });

    test('lets every filesystem count, if the guest names all disks there', () => {
      const filesystems = [on('/', '/dev/sda'), on('/data', '/dev/sdb')];
      expect(levels(freezeReport({ filesystems }), [nameless(false)])).toEqual(['filesystem', 'filesystem']);
      expect(levels(freezeReport({ filesystems: [...filesystems, stuck] }), [nameless()])).toEqual(['crash', 'crash']);
    });

    test('never takes the level of another disk for its own', () => {
      // Two filesystems on one disk; a database writes to the other, raw.
      const report = freezeReport({ filesystems: [on('/', '/dev/sda'), on('/home', '/dev/sda')] });
      expect(levels(report, [nameless()])).toEqual(['crash', 'crash']);
      expect(levels(report, [nameless(false)])).toEqual(['crash', 'crash']);
      expect(levels(report, [nameless(true)])).toEqual(['filesystem', 'filesystem']);
    });

    test('needs an address to count by', () => {
      const report = freezeReport({ filesystems: [root, data] });
      expect(levels(report, [{ name: 'x', ref: undefined, still: false }])).toEqual(['crash', 'crash']);
      expect(levels(report, [{ name: 'x', ref: undefined, still: true }])).toEqual(['filesystem', 'filesystem']);
    });
  });

  describe('calls a filesystem over several disks', () => {
    const over = (...refs: { serial?: string; pciAddress?: string }[]) =>
      freezeReport({ filesystems: [root, filesystemReport('/lvm', 'D', { disks: refs })], level: 'application' });

    test('nothing, if one of them was not cut', () => {
      const report = over({ serial: 'D' }, { serial: 'E' });
      expect(levels(report, both)).toEqual(['none', 'application', 'none']);
      expect(levelsOf(report, both).evidence.join()).toContain('/lvm lies in part on disks that were not cut (E)');
      expect(levels(report, [...both, disk('E')])).toEqual([
        'application',
        'application',
        'application',
        'application',
      ]);
    });

    test('nothing, if the guest cannot say what one of them is', () => {
      expect(levels(over({ serial: 'D' }, {}), both)).toEqual(['none', 'application', 'none']);
    });

    test('whole behind one address only if all disks there were cut', () => {
      const pciAddress = '0000:00:05.0';
      const one = { name: 'a', ref: undefined, still: true, pciAddress, sharers: 2 };
      const report = over({ serial: 'R' }, { pciAddress });
      expect(levels(report, [disk('R'), one])[0]).toBe('none');
      expect(levels(report, [disk('R'), one, { ...one, name: 'b' }])[0]).toBe('application');
    });
  });

  test('does not count what is not concerned', () => {
    const usb = filesystemReport('/media', 'R', { concerned: false, held: 'none' });
    expect(levels(freezeReport({ filesystems: [root, usb] }), [disk('R')])).toEqual(['filesystem', 'filesystem']);
  });

  test('matches by PCI address where there is no serial', () => {
    const byAddress = filesystemReport('/', 'R', { disks: [{ pciAddress: '0000:00:04.0' }] });
    const report = freezeReport({ filesystems: [byAddress] });
    const at = (pciAddress: string): CutDisk => ({ name: 'x', ref: { pciAddress }, still: undefined });
    expect(levels(report, [at('0000:00:04.0')])).toEqual(['filesystem', 'filesystem']);
    expect(levels(report, [at('0000:00:05.0')])).toEqual(['crash', 'crash']);
  });
});

describe('crashOnly', () => {
  test('says why', () => {
    expect(crashOnly(both, 'the VM is paused')).toMatchObject({
      level: 'crash',
      disks: [{ level: 'crash', evidence: ['the VM is paused'] }, { level: 'crash' }],
    });
  });
});
