// The managed save of a domain that is shut off: the memory of a VM that goes on, when it is started, with the images its
// XML names, just as they are. Changed meanwhile, they are destroyed by the first writes of that VM.
import { UnreachableError } from '../../../errors.js';
import type { Claim } from '../../images/use.js';
import { parseLibvirtAddress } from './address.js';

const ASK_MS = 30_000;

/**
 * What the managed save of the VM needs as it is: all images its XML names, the layers below its disks among them. None
 * if it has none, is no libvirt domain, or is not known to libvirt. Throws what Virsh.run does.
 */
export async function managedSaveOf(where: string): Promise<Claim[]> {
  const address = parseLibvirtAddress(where);
  if (address === undefined) return [];
  // What only a domain needs is loaded for one.
  const { imagesOf } = await import('./disk-element.js');
  const { Virsh } = await import('./virsh.js');
  await using virsh = new Virsh(address);
  try {
    const info = await virsh.run('dominfo', [], ASK_MS);
    if (!/^Managed save:\s*yes$/m.test(info)) return [];
    // It may have been reached by its UUID.
    const name = /^Name:\s*(.+)$/m.exec(info)?.[1] ?? virsh.domain;
    const why = `the managed save of libvirt domain ${name} goes on with it (start the domain, or drop its memory: virsh managedsave-remove)`;
    return imagesOf(await virsh.run('managedsave-dumpxml', [], ASK_MS)).map((file) => ({ file, needs: 'bytes', why }));
  } catch (error) {
    if (error instanceof UnreachableError && error.code === 'E_MONITOR') return [];
    throw error;
  }
}
