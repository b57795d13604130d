// Changes what libvirt will start a domain with. A snapshot through libvirt writes its overlays into the definition,
// and a commit takes them out again. When overlays are removed with the domain shut off, this has to be done here: else
// the domain would not start.
import { stat } from 'node:fs/promises';
import { UnreachableError } from '../../../errors.js';
import type { DefinedDisk } from '../defined-vm.js';
import type { ImageChange } from '../image-change.js';
import type { LibvirtAddress } from './address.js';
import { diskElement, diskOnImage } from './disk-element.js';
import { domainDisks } from './domain-xml.js';
import { Virsh } from './virsh.js';
import { xmlFiles } from './xml-files.js';

const ASK_MS = 30_000;

/** Definition.redefine of a domain (../definition.ts). */
export async function changeDefinition(
  address: LibvirtAddress,
  changes: readonly ImageChange[],
  before?: string,
): Promise<void> {
  await using virsh = new Virsh(address);
  const xml = await definitionOf(virsh);
  if (xml === undefined) return;
  const old = before === undefined ? [] : domainDisks(before);
  for (const { target, file } of domainDisks(xml)) {
    const change = changes.find(({ from }) => from === file);
    if (change === undefined) continue;
    const wasThere = old.some((disk) => disk.target === target && disk.file === change.to);
    const disk = wasThere ? diskElement(before ?? '', target) : await derived(xml, target, change);
    if (disk !== undefined) await updateDevice(virsh, disk);
  }
}

/** Definition.disks of a domain. */
export async function definedDisks(address: LibvirtAddress): Promise<readonly DefinedDisk[] | undefined> {
  await using virsh = new Virsh(address);
  const xml = await definitionOf(virsh);
  return xml === undefined ? undefined : domainDisks(xml);
}

async function derived(
  xml: string,
  target: string,
  { to, format, isEncrypted = false }: ImageChange,
): Promise<string | undefined> {
  // An image that is not there is named as a file.
  const isBlockDevice = (await stat(to).catch(() => undefined))?.isBlockDevice() ?? false;
  return diskOnImage(xml, target, { file: to, format, isBlockDevice, isEncrypted });
}

async function definitionOf(virsh: Virsh): Promise<string | undefined> {
  try {
    return await virsh.run('dumpxml', ['--inactive'], ASK_MS);
  } catch (error) {
    // The domain was undefined since, or it was never more than a running one.
    if (error instanceof UnreachableError && error.code === 'E_MONITOR') return undefined;
    throw error;
  }
}

async function updateDevice(virsh: Virsh, xml: string): Promise<void> {
  await using written = await xmlFiles(xml);
  await virsh.run('update-device', ['--file', written.files[0] ?? '', '--config'], ASK_MS);
}
