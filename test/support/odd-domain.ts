// A libvirt domain without a guest (its processor halts at once): raw image, block device, network disk and read-only disk,
// no agent channel. What a host tool must tell apart before it cuts.
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { Reverter } from '../../src/reverter.js';
import { createBlank } from '../../src/testing/disks.js';
import { exists } from '../../src/host/images/durable-file.js';
import type { LibvirtHost } from './libvirt.js';

export interface OddDomain extends AsyncDisposable {
  readonly host: LibvirtHost;
  readonly name: string;
  readonly dir: string;
  /** What vda (raw) and vdb (a loop device) are on. */
  readonly images: { readonly vda: string; readonly vdb: string };
}

const SIZE_MIB = 16;

export async function startOddDomain(host: LibvirtHost): Promise<OddDomain> {
  const name = 'odd';
  const dir = path.join(host.dir, name);
  const undo = new Reverter();
  try {
    await mkdir(dir);
    const file = (what: string): string => path.join(dir, what);
    for (const disk of ['raw', 'block', 'network', 'read-only']) await createBlank(file(disk), SIZE_MIB, 'raw');
    const loop = (await execa('losetup', ['--find', '--show', file('block')])).stdout;
    undo.push('loop device', async () => {
      await execa('losetup', ['--detach', loop]);
    });
    await serve(file('network'), file('nbd.sock'), undo);
    await writeFile(file('halt.bin'), haltingFirmware());
    const images = { vda: file('raw'), vdb: loop };
    await host.run(['create', await host.file(xml(name, file, loop))]);
    undo.push('domain', async () => {
      await host.virsh(['destroy', name]);
    });
    return { host, name, dir, images, [Symbol.asyncDispose]: () => undo.revert() };
  } catch (error) {
    await undo.revert();
    throw error;
  }
}

async function serve(file: string, socket: string, undo: Reverter): Promise<void> {
  const server = execa('qemu-nbd', ['--format', 'raw', '--persistent', '--socket', socket, file], { reject: false });
  undo.push('NBD server', async () => {
    server.kill();
    await server;
  });
  for (let tries = 0; !(await exists(socket)); tries++) {
    if (tries === 200) throw new Error('qemu-nbd does not listen');
    await sleep(50);
  }
}

/** `cli; hlt`, and back, at the reset vector. */
export function haltingFirmware(): Buffer {
  const firmware = Buffer.alloc(65_536);
  Buffer.from([0xfa, 0xf4, 0xeb, 0xfd]).copy(firmware, 0xfff0);
  return firmware;
}

function xml(name: string, file: (what: string) => string, loop: string): string {
  const disk = (type: string, source: string, target: string, rest = ''): string =>
    `<disk type='${type}' device='disk'><driver name='qemu' type='raw'/>${source}<target dev='${target}' bus='virtio'/>${rest}</disk>`;
  return `<domain type='qemu'>
  <name>${name}</name><memory unit='MiB'>16</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><loader readonly='yes' type='rom'>${file('halt.bin')}</loader></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    ${disk('file', `<source file='${file('raw')}'/>`, 'vda')}
    ${disk('block', `<source dev='${loop}'/>`, 'vdb')}
    ${disk('network', `<source protocol='nbd'><host transport='unix' socket='${file('nbd.sock')}'/></source>`, 'vdc')}
    ${disk('file', `<source file='${file('read-only')}'/>`, 'vdd', '<readonly/>')}
    <disk type='file' device='cdrom'><target dev='hda' bus='ide'/><readonly/></disk>
    <controller type='usb' model='none'/><memballoon model='none'/>
  </devices>
  <seclabel type='none'/>
</domain>`;
}
