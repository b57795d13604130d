// bench -- backup-domain: what the copying of a backup costs on a domain of a real libvirtd, by its backup-begin and its
// checkpoints (backup-copying.ts).
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { RunManifest } from '../../src/host/repository/run-manifest.js';
import { BareDomain } from '../support/bare-domain.js';
import { domainBridge } from '../support/libvirt-bridge.js';
import { LibvirtHost, qemuOf } from '../support/libvirt.js';
import { fillDisk, measureCopying } from './backup-copying.js';
import type { Row } from './table.js';

const POLL_MS = 50;
const DISK = '/machine/peripheral/virtio-disk0/virtio-backend';

export async function backupOfDomain(): Promise<readonly Row[]> {
  await using host = await LibvirtHost.start();
  const dir = await BareDomain.folder(host, 'bench');
  const image = path.join(dir, 'vda.qcow2');
  await fillDisk(image);
  const source = `<driver name='qemu' type='qcow2' discard='unmap'/><source file='${image}'/>`;
  const devices = `<disk type='file' device='disk'>${source}<target dev='vda' bus='virtio'/></disk>`;
  await using domain = await BareDomain.start(host, 'bench', { devices: () => devices });
  const folder = path.join(dir, 'backups');
  await mkdir(folder);
  return await measureCopying({
    ...{ label: 'libvirt domain', image, folder, pid: await qemuOf(dir) },
    write: async (pattern, offsetKilobytes, kilobytes) => {
      const command = `qemu-io -d ${DISK} "write -P ${pattern} ${offsetKilobytes}k ${kilobytes}k"`;
      const said = await domain.virsh('qemu-monitor-command', '--hmp', command);
      if (said !== '') throw new Error(`${command}: ${said}`);
    },
    backUp: async (repository, ...words) => {
      const given = ['backup', 'run', '--to', repository, '--require', 'crash', ...words];
      const { exitCode, json, stderr } = await domainBridge(domain, ...given);
      if (exitCode !== 0) throw new Error(`backup run: exit ${exitCode ?? '-'}: ${stderr}`);
      return json as RunManifest;
    },
    peer: {
      name: 'virsh backup-begin',
      copy: async (file) => {
        const xml = path.join(dir, 'backup.xml');
        const disk = `<disk name='vda' type='file'><target file='${file}'/><driver type='qcow2'/></disk>`;
        await writeFile(xml, `<domainbackup mode='push'><disks>${disk}</disks></domainbackup>`);
        await domain.virsh('backup-begin', xml);
        while (!/^Job type:\s+None/m.test(await domain.virsh('domjobinfo'))) await sleep(POLL_MS);
      },
    },
  });
}
