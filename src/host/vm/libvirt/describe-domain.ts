// Collects what belongs to a domain beside its disks: its XML, running and as defined (without passwords, as virsh
// gives it), and the place where the swtpm behind its TPM keeps state. Specification: libvirt's domain XML format, "TPM
// device"; swtpm(8).
import { readdir, readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { UnreachableError } from '../../../errors.js';
import { DEFINITION_TEXT } from '../defined-vm.js';
import type { VmDescription } from '../hypervisor.js';
import type { StateFolder } from '../state-folder.js';
import type { LibvirtAddress } from './address.js';
import { domainNvram, domainTpm } from './domain-xml.js';
import { Virsh } from './virsh.js';

const ASK_MS = 30_000;

/** Throws what Virsh.run does. */
export async function describeDomain(virsh: Virsh): Promise<VmDescription> {
  const live = await virsh.run('dumpxml', [], ASK_MS);
  const defined = await virsh.run('dumpxml', ['--inactive'], ASK_MS);
  return {
    texts: [
      { name: 'domain.xml', what: 'the running domain', text: live },
      { name: DEFINITION_TEXT, what: 'the definition of the domain', text: defined },
    ],
    folders: await tpmFolders(live),
  };
}

/** The same of a domain that is shut off; of one that runs, the variables of the firmware are among its disks. */
export async function describeDefinition(address: LibvirtAddress): Promise<VmDescription> {
  await using virsh = new Virsh(address);
  const text = await virsh.run('dumpxml', ['--inactive'], ASK_MS).catch((error: unknown) => {
    // It was never more than a running one.
    if (error instanceof UnreachableError && error.code === 'E_MONITOR') return undefined;
    throw error;
  });
  if (text === undefined) return { texts: [], folders: [] };
  const nvram = domainNvram(text);
  const firmware =
    nvram === undefined ? [] : [{ name: 'nvram', what: 'variables of the firmware', path: nvram, seenAt: nvram }];
  return {
    texts: [{ name: DEFINITION_TEXT, what: 'the definition of the domain', text }],
    folders: [...firmware, ...(await tpmFolders(text))],
  };
}

async function tpmFolders(xml: string): Promise<StateFolder[]> {
  const tpm = domainTpm(xml);
  return tpm === undefined ? [] : [await tpmState(tpm)];
}

async function tpmState({ uuid, path }: { readonly uuid: string; readonly path?: string }): Promise<StateFolder> {
  const about = { name: 'tpm', what: 'state of the TPM' };
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const words = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
    if (basename(words[0] ?? '') !== 'swtpm' || !words.some((word) => word.includes(path ?? uuid))) continue;
    const state = words[words.indexOf('--tpmstate') + 1] ?? '';
    const folder = /(?:^|,)(?:dir=|backend-uri=(?:file|dir):\/\/)([^,]+)/.exec(state)?.[1];
    // The path as swtpm sees it: libvirt and what it starts may have mounts of their own.
    if (folder !== undefined) return { ...about, path: folder, seenAt: `/proc/${pid}/root${folder}` };
  }
  // Where libvirt keeps it for the system's domains.
  const folder = path ?? `/var/lib/libvirt/swtpm/${uuid}`;
  return { ...about, path: folder, seenAt: folder };
}
