// Reads the managed save of a domain that is shut off: the memory of a VM which, when it is started, goes on with the
// images that the save's XML names, just as they are. If they are changed meanwhile, the first writes of that VM
// destroy them.
import { UnreachableError } from '../../../errors.js';
import type { Claim } from '../../images/use.js';
import type { LibvirtAddress } from './address.js';
import { imagesOf } from './disk-element.js';
import { Virsh } from './virsh.js';

const ASK_MS = 30_000;

/** Definition.savedState of a domain (../definition.ts); empty also for one that libvirt does not know. */
export async function managedSaveOf(address: LibvirtAddress): Promise<Claim[]> {
  await using virsh = new Virsh(address);
  try {
    const info = await virsh.run('dominfo', [], ASK_MS);
    if (!/^Managed save:\s*yes$/m.test(info)) return [];
    // The domain may have been reached by its UUID.
    const name = /^Name:\s*(.+)$/m.exec(info)?.[1] ?? virsh.domain;
    const why = `the managed save of libvirt domain ${name} goes on with it (start the domain and shut it down, or drop its memory: virsh managedsave-remove)`;
    return imagesOf(await virsh.run('managedsave-dumpxml', [], ASK_MS)).map((file) => ({ file, needs: 'bytes', why }));
  } catch (error) {
    if (error instanceof UnreachableError && error.code === 'E_MONITOR') return [];
    throw error;
  }
}
