// The disks of a running domain as QEMU has them, but named as libvirt does: by their target, `vda`.
import { readDisks, type VmDisk } from '../../../qmp/block-graph.js';
import type { Monitor } from '../../../qmp/monitor.js';
import { domainDisks } from './domain-xml.js';
import type { Virsh } from './virsh.js';

const ASK_MS = 30_000;
const ATTEMPTS = 4;

/** A disk that libvirt does not know keeps QEMU's names. Throws what Virsh.run and readDisks do. */
export async function disksOfDomain(virsh: Virsh, monitor: Monitor): Promise<readonly VmDisk[]> {
  const known = domainDisks(await virsh.run('dumpxml', [], ASK_MS));
  const disks = await readWhole(monitor);
  return disks.map((disk) => {
    const target = known.find(({ alias }) => alias === disk.id)?.target;
    return target === undefined ? disk : { ...disk, id: target, device: target };
  });
}

// A job of libvirt's that ends between two questions takes the filter away that it had put above a disk.
async function readWhole(monitor: Monitor): Promise<readonly VmDisk[]> {
  let disks = await readDisks(monitor);
  for (let attempt = 1; attempt < ATTEMPTS && disks.some(({ trouble }) => trouble !== undefined); attempt++) {
    disks = await readDisks(monitor);
  }
  return disks;
}
