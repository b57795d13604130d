// Refuses domains of another host: questions reach them, but their images do not lie here.
import { UsageError } from '../../../errors.js';
import { otherHost, type LibvirtAddress } from './address.js';
import { Virsh } from './virsh.js';

const ASK_MS = 30_000;

/** Throws a UsageError if libvirt's URI leads to another host; nothing is asked there. */
export async function refuseOtherHost(virsh: Virsh): Promise<void> {
  const uri = await virsh.uri(ASK_MS);
  const host = otherHost(uri);
  if (host === undefined) return;
  const message = `${virsh.where} runs on another host (${host}, by ${uri}), and its images are there: run fsfreeze-bridge there`;
  throw new UsageError('E_OTHER_HOST', message);
}

/** `refuseOtherHost` of a domain that need not run. */
export async function refuseImagesElsewhere(address: LibvirtAddress): Promise<void> {
  await using virsh = new Virsh(address);
  await refuseOtherHost(virsh);
}
