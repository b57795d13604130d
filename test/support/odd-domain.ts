// A libvirt domain without a guest (halting-domain.ts) and without an agent channel, whose disks a host tool must tell apart
// before it cuts: raw image, block device, network disk and read-only disk.
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { Reverter } from '../../src/reverter.js';
import { createBlank } from '../../src/testing/disks.js';
import { exists } from '../../src/host/images/durable-file.js';
import { addHaltingFirmware, haltingDomainXml } from './halting-domain.js';
import type { LibvirtHost } from './libvirt.js';

export interface OddDomain extends AsyncDisposable {
  readonly host: LibvirtHost;
  readonly name: string;
  readonly dir: string;
  /** The files or devices that vda (raw) and vdb (a loop device) are on. */
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
    await addHaltingFirmware(dir);
    const images = { vda: file('raw'), vdb: loop };
    await host.run(['create', await host.file(xml(name, dir, loop))]);
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

function xml(name: string, dir: string, loop: string): string {
  const file = (what: string): string => path.join(dir, what);
  const disk = (type: string, source: string, target: string, rest = ''): string =>
    `<disk type='${type}' device='disk'><driver name='qemu' type='raw'/>${source}<target dev='${target}' bus='virtio'/>${rest}</disk>`;
  const devices = [
    disk('file', `<source file='${file('raw')}'/>`, 'vda'),
    disk('block', `<source dev='${loop}'/>`, 'vdb'),
    disk('network', `<source protocol='nbd'><host transport='unix' socket='${file('nbd.sock')}'/></source>`, 'vdc'),
    disk('file', `<source file='${file('read-only')}'/>`, 'vdd', '<readonly/>'),
    `<disk type='file' device='cdrom'><target dev='hda' bus='ide'/><readonly/></disk>`,
  ];
  return haltingDomainXml({ name, dir, devices: devices.join('\n') });
}
