import { expect, test } from 'vitest';
import { diskWithFile, domainDisks } from '../../../../../src/host/vm/libvirt/domain-xml.js';

const xml = `<domain type='qemu' id='1'>
  <name>x</name>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' discard='unmap'/>
      <source file='/images/a &amp; b.s1.qcow2' index='4'/>
      <backingStore type='file' index='1'>
        <format type='qcow2'/>
        <source file='/images/a &amp; b.qcow2'/>
        <backingStore/>
      </backingStore>
      <mirror type='file' job='active-commit' ready='yes'><source file='/images/a &amp; b.qcow2'/></mirror>
      <target dev='vda' bus='virtio'/>
      <serial>root</serial>
      <alias name='virtio-disk0'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x05' function='0x0'/>
    </disk>
    <disk type='block' device='disk'><source dev='/dev/vg/lv'/><target dev='vdb'/><alias name='ua-mine'/></disk>
    <disk type='network' device='disk'><source protocol='nbd' name='x'/><target dev='vdc'/></disk>
    <disk type='file' device='cdrom'><target dev='hda' bus='ide'/><readonly/></disk>
  </devices>
</domain>`;

test('disks by target, with alias, active image and job', () => {
  expect(domainDisks(xml)).toEqual([
    {
      target: 'vda',
      alias: 'virtio-disk0',
      file: '/images/a & b.s1.qcow2',
      mirror: { job: 'active-commit', ready: true },
    },
    { target: 'vdb', alias: 'ua-mine', file: '/dev/vg/lv' },
    { target: 'vdc' },
    { target: 'hda' },
  ]);
});

test('a domain without disks, and one with a single disk', () => {
  expect(domainDisks('<domain><devices><emulator>/x</emulator></devices></domain>')).toEqual([]);
  const single = "<domain><devices><disk><source file='/1'/><target dev='sda'/></disk></devices></domain>";
  expect(domainDisks(single)).toEqual([{ target: 'sda', file: '/1' }]);
});

test('what is no domain is refused', () => {
  expect(() => domainDisks('<pool/>')).toThrow(/libvirt's XML: domain/);
});

test('one disk with another image: the rest of it stays, what lay below the old image goes', () => {
  const disk = diskWithFile(xml, 'vda', '/images/a & b.raw', 'raw') ?? '';
  const [read] = domainDisks(`<domain><devices>${disk}</devices></domain>`);
  expect(read).toEqual({ target: 'vda', alias: 'virtio-disk0', file: '/images/a & b.raw' });
  expect(disk).toContain('discard="unmap"');
  expect(disk).toContain('type="raw"');
  expect(disk).toContain('slot="0x05"');
  expect(disk).toContain('<serial>root</serial>');
  expect(disk).not.toMatch(/backingStore|mirror/);
});

test('a disk that is on no file has no other', () => {
  expect(diskWithFile(xml, 'vdb', '/x', 'raw')).toBeUndefined();
  expect(diskWithFile(xml, 'vdz', '/x', 'raw')).toBeUndefined();
});
