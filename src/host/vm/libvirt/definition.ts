// What libvirt will start a domain with. A snapshot through libvirt writes its overlays into the definition, and a commit
// takes them out again; when overlays are removed with the domain shut off, somebody has to: else it would not start.
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { UnreachableError } from '../../../errors.js';
import { parseLibvirtAddress } from './address.js';
import { diskElement, diskOnImage } from './disk-element.js';
import { domainDisks } from './domain-xml.js';
import { Virsh } from './virsh.js';

export interface ImageChange {
  readonly from: string;
  readonly to: string;
  /** Of `to`. */
  readonly format: string;
  readonly isEncrypted?: boolean;
}

const ASK_MS = 30_000;

/**
 * Puts other images into the domain's definition; the running domain is not touched. A disk that was on such an image in
 * `before`, an older definition, becomes what it was there. Disks with other images are left alone, and so is what is no
 * libvirt domain, or none any more. Throws what Virsh.run does, and a BridgeError for an image of which too little is known.
 */
export async function changeDefinition(where: string, changes: readonly ImageChange[], before?: string): Promise<void> {
  const address = parseLibvirtAddress(where);
  if (address === undefined) return;
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

async function derived(
  xml: string,
  target: string,
  { to, format, isEncrypted = false }: ImageChange,
): Promise<string | undefined> {
  // One that is not there is no better as a device.
  const isBlockDevice = (await stat(to).catch(() => undefined))?.isBlockDevice() ?? false;
  return diskOnImage(xml, target, { file: to, format, isBlockDevice, isEncrypted });
}

async function definitionOf(virsh: Virsh): Promise<string | undefined> {
  try {
    return await virsh.run('dumpxml', ['--inactive'], ASK_MS);
  } catch (error) {
    // Undefined since, or it was never more than a running one.
    if (error instanceof UnreachableError && error.code === 'E_MONITOR') return undefined;
    throw error;
  }
}

async function updateDevice(virsh: Virsh, xml: string): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'fsfreeze-bridge-'));
  try {
    const file = join(folder, 'disk.xml');
    await writeFile(file, xml);
    await virsh.run('update-device', ['--file', file, '--config'], ASK_MS);
  } finally {
    await rm(folder, { recursive: true });
  }
}
