// Makes the folder of a VM that is to be started from a run: images over the run's files, copies of its firmware's variables
// and of its TPM's state, and the record of the start. It has its name once everything in it is whole.
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { guestArguments, withNodes, type Accelerator, type GuestSetup } from '../boot/guest-arguments.js';
import { disksFor, flashFor, hasTpm } from '../boot/guest-files.js';
import type { MachineChoice } from '../boot/boot-options.js';
import { readSavedFile } from '../boot/saved-file.js';
import { syncPath } from '../images/durable-file.js';
import type { FoundRun } from '../repository/find-run.js';
import type { RunDisk } from '../repository/run-manifest.js';
import { draftOf } from '../restore/new-folder.js';
import type { MachineFacts } from '../vm/machine-facts.js';
import type { StartFolder } from './start-folder.js';
import { writeRecord, type StartRecord } from './start-record.js';

export interface Preparation {
  readonly found: FoundRun;
  /** Folder of the repository. */
  readonly repository: string;
  readonly disks: readonly RunDisk[];
  readonly facts: MachineFacts;
  readonly choice: Pick<MachineChoice, 'diskBus' | 'qemuArgs'>;
  readonly speed: number | undefined;
  readonly signal: AbortSignal;
}

export interface Prepared {
  readonly record: StartRecord;
  /** What a person has to know, in sentences. */
  readonly notes: readonly string[];
}

/** Until QEMU is told to go on. */
const WAITS = '-S';

/** Durable when it returns. Throws a CutError `E_CHAIN` for a file that is not as recorded; nothing is left of what failed. */
export async function prepareFolder(
  folder: StartFolder,
  accelerator: Accelerator,
  { found, repository, disks, facts, choice, speed, signal }: Preparation,
): Promise<Prepared> {
  const { manifest, vm } = found;
  const draft = draftOf(folder.path);
  // Nothing of it is encrypted.
  const reading = { signal, key: undefined };
  const inPlace = (file: string): string => join(folder.path, basename(file));
  try {
    await mkdir(draft, { mode: 0o750 });
    const images = await disksFor(found, disks, draft, { lastingBases: true, reading });
    const { flash, notes } = await flashFor(vm.folder, manifest, facts, draft, reading);
    if (hasTpm(manifest)) notes.push(await keepTpm(found, draft, folder.path));
    if (manifest.saved.some(({ name }) => name === DOMAIN))
      notes.push(ofDomain(join(vm.folder.run(manifest.run), DOMAIN)));
    const own = [...images.map(({ overlay }) => overlay), ...flash.map(({ file }) => file)];
    for (const file of own.filter((each) => dirname(each) === draft)) await syncPath(file);
    const setup: GuestSetup = {
      ...{ facts, accelerator, uuid: manifest.vm.uuid, stays: vm.name },
      ...{ diskBus: choice.diskBus, qemuArgs: choice.qemuArgs },
      disks: images.map((each) => ({ ...each, overlay: inPlace(each.overlay) })),
      flash: flash.map((each) => (dirname(each.file) === draft ? { ...each, file: inPlace(each.file) } : each)),
      paths: { qmp: folder.control, userQmp: folder.qmp, agent: folder.agent, console: folder.console },
    };
    const record: StartRecord = {
      ...{ format: 1, run: manifest.run, repository },
      command: [`qemu-system-${facts.arch}`, ...guestArguments(setup).filter((word) => word !== WAITS)],
      disks: withNodes(setup.disks).map(({ overlay, node }) => ({ file: overlay, node })),
      speed,
    };
    await writeRecord({ record: join(draft, basename(folder.record)) }, record);
    await rename(draft, folder.path);
    await syncPath(dirname(folder.path));
    return { record, notes };
  } catch (error) {
    await rm(draft, { recursive: true, force: true });
    throw error;
  }
}

/** How QEMU is started the first time: it waits. */
export function waiting({ command }: StartRecord): readonly [string, readonly string[]] {
  const [program = '', ...words] = command;
  return [program, [WAITS, ...words]];
}

/** The definition of a libvirt domain, among what is kept with a run. */
const DOMAIN = 'domain.xml';

function ofDomain(definition: string): string {
  return `it was a libvirt domain, and runs as a plain QEMU that libvirt does not know, without the network of its definition (${definition})`;
}

/** Copies the state, and says so. */
async function keepTpm({ manifest, vm }: FoundRun, draft: string, target: string): Promise<string> {
  const states = manifest.saved.filter(({ name }) => name.startsWith('tpm/'));
  await mkdir(join(draft, 'tpm'), { mode: 0o700 });
  for (const each of states) {
    const copy = join(draft, 'tpm', basename(each.name));
    await writeFile(copy, await readSavedFile(vm.folder.run(manifest.run), each), { mode: 0o600 });
    await syncPath(copy);
  }
  await syncPath(join(draft, 'tpm'));
  return `it is started without its TPM, whose state is in ${join(target, 'tpm')}: what only that unlocks stays locked`;
}
