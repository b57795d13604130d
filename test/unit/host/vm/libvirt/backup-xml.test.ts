// The XML that libvirt is given for a backup, and what is read of its own.
import { expect, test } from 'vitest';
import { backupFiles, backupXml, checkpointXml } from '../../../../../src/host/vm/libvirt/backup-xml.js';

test('a backup names every disk, those that are left out too, and what each is copied since', () => {
  const disks = [
    { target: 'vda', file: `/r/a & 'b'.qcow2`, since: 'old' },
    { target: 'vdb', file: '/r/b.qcow2', since: undefined },
  ];
  const xml = backupXml(disks, ['sda']);
  expect(xml).toContain('<domainbackup mode="push">');
  expect(xml).toContain('<disk name="vda" backup="yes" type="file" backupmode="incremental" incremental="old">');
  expect(xml).toContain('<disk name="vdb" backup="yes" type="file" backupmode="full">');
  expect(xml).toContain('<disk name="sda" backup="no"></disk>');
  expect(backupFiles(xml)).toEqual([`/r/a & 'b'.qcow2`, '/r/b.qcow2']);
});

test('a checkpoint has one name on all its disks, and its time only if it was there before', () => {
  const xml = checkpointXml({ name: 'new', targets: ['vda'], others: ['vdb'] });
  expect(xml).toContain('<name>new</name><disks>');
  expect(xml).toContain('<disk name="vda" checkpoint="bitmap" bitmap="new"></disk>');
  expect(xml).toContain('<disk name="vdb" checkpoint="no"></disk>');
  const since = new Date('2026-01-01T00:00:01.900Z');
  expect(checkpointXml({ name: 'old', targets: ['vda'], others: [], since })).toContain(
    '<creationTime>1767225601</creationTime>',
  );
});

test('what is no backup is refused', () => {
  expect(() => backupFiles('<domain/>')).toThrow("libvirt's XML of a backup");
});
