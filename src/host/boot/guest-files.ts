// What a guest that is started from a run writes to: an image for each disk, and copies of its firmware's variables.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { UsageError } from '../../errors.js';
import { makeImage } from '../images/image-file.js';
import { referencesOf } from '../images/references.js';
import { chainOf, checkLink } from '../repository/chain.js';
import type { FoundRun } from '../repository/find-run.js';
import type { VmFolder } from '../repository/layout.js';
import type { LinkReading } from '../repository/luks-link.js';
import type { RunDisk, RunManifest } from '../repository/run-manifest.js';
import type { MachineFacts } from '../vm/machine-facts.js';
import type { GuestDisk } from './guest-arguments.js';
import { decrypt, readSavedFile } from './saved-file.js';

/**
 * Makes an image for each of those disks, over the files of the run, which are compared with their records first. With
 * `lastingBases` it is named as the run names it, and its own header says what it lies on. Throws a CutError `E_CHAIN`.
 */
export async function disksFor(
  { manifest, runs, vm }: FoundRun,
  wanted: readonly RunDisk[],
  folder: string,
  { lastingBases, reading }: { readonly lastingBases: boolean; readonly reading: LinkReading },
): Promise<GuestDisk[]> {
  const disks: GuestDisk[] = [];
  for (const [index, disk] of wanted.entries()) {
    const links = chainOf(vm.folder, runs.all, manifest, disk);
    for (const link of links) await checkLink(link, reading);
    const { id, serial, pciAddress, virtualSize } = disk;
    const overlay = join(folder, lastingBases ? disk.file.name : `disk${index}`);
    const backing = lastingBases ? { name: links[0]?.file ?? '', format: 'qcow2' } : undefined;
    await makeImage({ file: overlay, virtualSize, compression: 'zlib', backing });
    disks.push({ id, serial, pciAddress, overlay, links });
  }
  return disks;
}

/** The firmware's code as it lies on this host, and copies of its variables, which the guest writes to. */
export async function flashFor(
  folder: VmFolder,
  { run, saved }: RunManifest,
  { flash }: MachineFacts,
  scratch: string,
  reading: LinkReading,
) {
  const found: MachineFacts['flash'][number][] = [];
  const notes: string[] = [];
  for (const [unit, each] of flash.entries()) {
    if (each.readOnly) {
      found.push(each);
      continue;
    }
    const copy = saved.find(({ from }) => from === each.file);
    if (copy === undefined) {
      notes.push(`the variables of its firmware are not in the run: it starts without those of ${each.file}`);
      continue;
    }
    const file = join(scratch, `flash${unit}`);
    await writeFile(file, await readSavedFile(folder.run(run), copy), { mode: 0o600 });
    if (copy.encryption !== undefined) await decrypt(file, copy.encryption.size, reading);
    const { backingName, dataFiles } = await referencesOf(file);
    if (backingName !== undefined || dataFiles.length > 0) {
      throw new UsageError('E_BOOT', `${copy.name} of run ${run} names other files: expected the variables themselves`);
    }
    found.push({ ...each, file });
  }
  return { flash: found, notes };
}

const TPM = 'tpm/';

/** True if the state of a TPM was kept with the run. */
export function hasTpm({ saved }: RunManifest): boolean {
  return saved.some(({ name }) => name.startsWith(TPM));
}
