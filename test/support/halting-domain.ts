// A virtual machine without a guest: its firmware is one HLT, so it runs and costs nothing. For QEMU the firmware, for
// libvirt the XML around a test's own devices.
import { writeFile } from 'node:fs/promises';
import path from 'node:path';

const FIRMWARE = 'halt.bin';

export interface HaltingDomainParts {
  readonly name: string;
  /** Holds the firmware: see `addHaltingFirmware`. */
  readonly dir: string;
  /** XML within <devices>. */
  readonly devices: string;
  readonly uuid?: string;
  /** Default pc. */
  readonly machine?: 'pc' | 'q35';
  /** Default rom. */
  readonly loader?: 'rom' | 'pflash';
  /** XML within <os>, besides type and loader. */
  readonly flash?: string;
  /** XML within <domain>, before <devices>. */
  readonly features?: string;
  /** XML within <domain>, at its end; the prefix `qemu` is known. */
  readonly more?: string;
}

/** `cli; hlt`, and back, at the reset vector. */
export function haltingFirmware(): Buffer {
  const firmware = Buffer.alloc(65_536);
  Buffer.from([0xfa, 0xf4, 0xeb, 0xfd]).copy(firmware, 0xfff0);
  return firmware;
}

/** Puts it into the folder of a domain. */
export async function addHaltingFirmware(dir: string): Promise<void> {
  await writeFile(path.join(dir, FIRMWARE), haltingFirmware());
}

export function haltingDomainXml({
  name,
  dir,
  devices,
  uuid,
  machine = 'pc',
  loader = 'rom',
  flash = '',
  features = '',
  more = '',
}: HaltingDomainParts): string {
  const namespace = more === '' ? '' : " xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'";
  const identity = uuid === undefined ? '' : `<uuid>${uuid}</uuid>`;
  return `<domain type='qemu'${namespace}>
  <name>${name}</name>${identity}<memory unit='MiB'>16</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='${machine}'>hvm</type><loader readonly='yes' type='${loader}'>${path.join(dir, FIRMWARE)}</loader>${flash}</os>
  ${features}
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    ${devices}
    <controller type='usb' model='none'/><memballoon model='none'/>
  </devices>
  <seclabel type='none'/>
  ${more}
</domain>`;
}
