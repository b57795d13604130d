import { expect, test } from 'vitest';
import { diskElement, diskOnImage, imagesOf } from '../../../../../src/host/vm/libvirt/disk-element.js';
import { domainDisks } from '../../../../../src/host/vm/libvirt/domain-xml.js';

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

const plain = { format: 'raw', isBlockDevice: false, isEncrypted: false };
const parsed = (disk: string) => domainDisks(`<domain><devices>${disk}</devices></domain>`);

test('one disk with another image: the rest of it stays, what lay below the old image goes', () => {
  const disk = diskOnImage(xml, 'vda', { ...plain, file: '/images/a & b.raw' }) ?? '';
  expect(parsed(disk)).toMatchObject([
    { target: 'vda', alias: 'virtio-disk0', file: '/images/a & b.raw', format: 'raw' },
  ]);
  expect(disk).toContain('discard="unmap"');
  expect(disk).toContain('<driver name="qemu" type="raw"');
  expect(disk).toContain('slot="0x05"');
  expect(disk).toContain('<serial>root</serial>');
  expect(disk).not.toMatch(/backingStore|mirror/);
});

test('a device is put into a disk as a device', () => {
  const disk = diskOnImage(xml, 'vda', { ...plain, file: '/dev/vg0/root', isBlockDevice: true }) ?? '';
  expect(disk).toMatch(/^<disk type="block" device="disk">/);
  expect(disk).toContain('<source dev="/dev/vg0/root">');
  expect(disk).not.toMatch(/file=/);
});

const overlays = `<domain><devices><disk type='file' device='disk'>
  <driver name='qemu' type='qcow2' cache='none'/>
  <source file='/o/2.qcow2'/>
  <backingStore type='file'><format type='qcow2'/><source file='/o/1.qcow2'/>
    <backingStore type='block'><format type='qcow2'/>
      <source dev='/dev/vg0/root' index='1'><encryption format='luks'><secret type='passphrase' uuid='0a81f5b2'/></encryption></source>
      <backingStore/>
    </backingStore>
  </backingStore>
  <target dev='vda'/>
</disk></devices></domain>`;

test('of a layer below the disk libvirt still knows the kind and the encryption', () => {
  const image = { file: '/dev/vg0/root', format: 'qcow2', isBlockDevice: false, isEncrypted: true };
  const disk = diskOnImage(overlays, 'vda', image) ?? '';
  expect(disk).toMatch(/^<disk type="block"/);
  expect(disk).toContain(
    '<source dev="/dev/vg0/root"><encryption format="luks"><secret type="passphrase" uuid="0a81f5b2">',
  );
  expect(disk).toContain('cache="none"');
  expect(parsed(disk)).toMatchObject([{ target: 'vda', file: '/dev/vg0/root', format: 'qcow2' }]);
  expect(imagesOf(overlays)).toEqual(['/o/2.qcow2', '/o/1.qcow2', '/dev/vg0/root']);
});

test('an encrypted image of which libvirt knows nothing any more is not put in as one in clear text', () => {
  expect(() => diskOnImage(xml, 'vda', { ...plain, file: '/images/c.qcow2', isEncrypted: true })).toThrow(
    'disk vda: libvirt no longer says how /images/c.qcow2 is encrypted',
  );
});

test('a disk that is on no image has no other; one is given as it stands', () => {
  expect(diskOnImage(xml, 'vdc', { ...plain, file: '/x' })).toBeUndefined();
  expect(diskOnImage(xml, 'vdz', { ...plain, file: '/x' })).toBeUndefined();
  expect(diskElement(xml, 'vdz')).toBeUndefined();
  expect(diskElement(xml, 'vdb')).toMatch(/^<disk type="block" device="disk"><source dev="\/dev\/vg\/lv">/);
});
