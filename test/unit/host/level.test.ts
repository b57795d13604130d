import { describe, expect, it } from 'vitest';
import { crashOnly, levelsOf, type CutDisk } from '../../../src/host/level.js';
import { filesystemReport, freezeReport, writerReport } from '../../support/freeze-reports.js';

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
  it('gives every disk what the guest proved', () => {
    const filesystems = [root, data];
    expect(levels(freezeReport({ filesystems }))).toEqual(['filesystem', 'filesystem', 'filesystem']);
    const application = freezeReport({ filesystems, level: 'application', writers: [writerReport('50-db')] });
    expect(levels(application)).toEqual(['application', 'application', 'application']);
  });

  it('lowers only the disk whose filesystem was not held', () => {
    expect(levels(freezeReport({ filesystems: [root, stuck], level: 'crash' }))).toEqual([
      'crash',
      'filesystem',
      'crash',
    ]);
  });

  it('never takes the level of the whole for more than the disks prove', () => {
    // A guest that forgot its own EBUSY.
    expect(levels(freezeReport({ filesystems: [root, stuck], level: 'application' }))).toEqual([
      'crash',
      'application',
      'crash',
    ]);
  });

  it('never takes a disk for more than the whole without the full record of its filesystems', () => {
    const { freeze, thaw, ...bare } = root;
    expect(freeze).not.toEqual(thaw);
    expect(levels(freezeReport({ filesystems: [bare, stuck], level: 'crash' }))).toEqual(['crash', 'crash', 'crash']);
    const failed = filesystemReport('/', 'R', { thawErrno: 22 });
    expect(levels(freezeReport({ filesystems: [failed, stuck], level: 'crash' }))).toEqual(['crash', 'crash', 'crash']);
  });

  it.each(['expired', 'broken', 'failed'] as const)('calls a hold that ended %s a crash', (outcome) => {
    const report = freezeReport({ filesystems: [root, data], outcome, level: 'none', error: 'thawed after 10 s' });
    expect(levels(report)).toEqual(['crash', 'crash', 'crash']);
    expect(levelsOf(report, both).evidence.join()).toContain('thawed after 10 s');
  });

  it('calls a hold whose end is not known a crash', () => {
    expect(levels(freezeReport({ filesystems: [root, data], state: 'frozen' }))).toEqual(['crash', 'crash', 'crash']);
  });

  it('counts a disk without a filesystem only if nothing was written to it', () => {
    const report = freezeReport({ filesystems: [root] });
    expect(levels(report, [disk('R'), disk('S', true)])).toEqual(['filesystem', 'filesystem', 'filesystem']);
    expect(levels(report, [disk('R'), disk('S', false)])).toEqual(['crash', 'filesystem', 'crash']);
    expect(levels(report, [disk('R'), disk('S')])).toEqual(['crash', 'filesystem', 'crash']);
  });

  it('lets a filesystem on unknown disks count for every disk', () => {
    const lost = filesystemReport('/iscsi', 'X', { disks: [], held: 'none', reason: 'not supported' });
    expect(levels(freezeReport({ filesystems: [root, data, lost] }))).toEqual(['crash', 'crash', 'crash']);
  });

  it('lets every filesystem count for a disk that cannot be told from another', () => {
    const nameless: CutDisk = { name: 'x', ref: undefined, still: undefined };
    expect(levels(freezeReport({ filesystems: [root, data] }), [nameless])).toEqual(['filesystem', 'filesystem']);
    expect(levels(freezeReport({ filesystems: [root, stuck] }), [nameless])).toEqual(['crash', 'crash']);
  });

  it('does not count what is not concerned', () => {
    const usb = filesystemReport('/media', 'R', { concerned: false, held: 'none' });
    expect(levels(freezeReport({ filesystems: [root, usb] }), [disk('R')])).toEqual(['filesystem', 'filesystem']);
  });

  it('matches by PCI address where there is no serial', () => {
    const byAddress = filesystemReport('/', 'R', { disks: [{ pciAddress: '0000:00:04.0' }] });
    const report = freezeReport({ filesystems: [byAddress] });
    const at = (pciAddress: string): CutDisk => ({ name: 'x', ref: { pciAddress }, still: undefined });
    expect(levels(report, [at('0000:00:04.0')])).toEqual(['filesystem', 'filesystem']);
    expect(levels(report, [at('0000:00:05.0')])).toEqual(['crash', 'crash']);
  });
});

describe('crashOnly', () => {
  it('says why', () => {
    expect(crashOnly(both, 'the VM is paused')).toMatchObject({
      level: 'crash',
      disks: [{ level: 'crash', evidence: ['the VM is paused'] }, { level: 'crash' }],
    });
  });
});
