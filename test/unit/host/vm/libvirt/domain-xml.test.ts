import { expect, test } from 'vitest';
import { domainDisks, domainNvram, domainTpm } from '../../../../../src/host/vm/libvirt/domain-xml.js';

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
      format: 'qcow2',
      serial: 'root',
      mirror: { job: 'active-commit', ready: true },
    },
    { target: 'vdb', alias: 'ua-mine', file: '/dev/vg/lv', format: 'raw' },
    { target: 'vdc', format: 'raw', notInFile: 'its image is no file or device of this host' },
    {
      target: 'hda',
      format: 'raw',
      unwritten: 'removable medium',
      notInFile: 'its image is no file or device of this host',
    },
  ]);
});

test('a domain without disks, and one with a single disk', () => {
  expect(domainDisks('<domain><devices><emulator>/x</emulator></devices></domain>')).toEqual([]);
  const single = "<domain><devices><disk><source file='/1'/><target dev='sda'/></disk></devices></domain>";
  expect(domainDisks(single)).toEqual([{ target: 'sda', file: '/1', format: 'raw' }]);
});

test.each([
  ["<disk device='disk'><source file='/1'/><target dev='a'/><readonly/></disk>", { unwritten: 'read-only' }],
  [
    "<disk device='lun'><source dev='/1'/><target dev='a'/></disk>",
    { notInFile: expect.stringContaining('passed') as string },
  ],
  [
    "<disk><source file='/1'/><target dev='a'/><shareable/></disk>",
    { notInFile: expect.stringContaining('others') as string },
  ],
  [
    "<disk><source file='/1'><encryption format='luks'/></source><target dev='a'/></disk>",
    { notInFile: expect.stringContaining('encrypted') as string },
  ],
  [
    "<disk><source file='/1'/><encryption format='luks'/><target dev='a'/></disk>",
    { notInFile: expect.stringContaining('encrypted') as string },
  ],
  [
    "<disk><source file='/1'><slices><slice type='storage' offset='1' size='2'/></slices></source><target dev='a'/></disk>",
    { notInFile: 'it is a slice of /1' },
  ],
])('a disk that is not kept by copying its file: %s', (disk, why) => {
  expect(domainDisks(`<domain><devices>${disk}</devices></domain>`)).toEqual([
    { target: 'a', file: '/1', format: 'raw', ...why },
  ]);
});

test('what is no domain is refused', () => {
  expect(() => domainDisks('<pool/>')).toThrow(/libvirt's XML: domain/);
});

test('a TPM whose state lies in files, and where, if the domain says so', () => {
  const domain = (tpm: string): string => `<domain><uuid>u-1</uuid><devices>${tpm}</devices></domain>`;
  expect(domainTpm(domain(''))).toBeUndefined();
  expect(
    domainTpm(domain("<tpm><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>")),
  ).toBeUndefined();
  expect(domainTpm(domain("<tpm><backend type='emulator' version='2.0'/></tpm>"))).toEqual({ uuid: 'u-1' });
  const chosen = "<tpm><backend type='emulator'><source type='dir' path='/srv/tpm'/></backend></tpm>";
  expect(domainTpm(domain(chosen))).toEqual({ uuid: 'u-1', path: '/srv/tpm' });
});

test('the variables of the firmware, in each spelling of libvirt', () => {
  const domain = (nvram: string): string => `<domain><os><type>hvm</type>${nvram}</os></domain>`;
  expect(domainNvram(domain(''))).toBeUndefined();
  expect(domainNvram(domain("<nvram template='/t'/>"))).toBeUndefined();
  expect(domainNvram(domain('<nvram>/v.fd</nvram>'))).toBe('/v.fd');
  expect(domainNvram(domain("<nvram template='/t'>/v.fd</nvram>"))).toBe('/v.fd');
  expect(domainNvram(domain("<nvram type='file'><source file='/v.fd'/></nvram>"))).toBe('/v.fd');
});
