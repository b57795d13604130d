// Finds VMs and runs in a repository by what a person calls them. The VM itself need not be there any more.
import { readFile } from 'node:fs/promises';
import * as v from 'valibot';
import { UsageError } from '../../errors.js';
import type { VmFolder } from './layout.js';
import { vmFolders, type Repository } from './repository.js';
import type { RunManifest } from './run-manifest.js';
import { readRuns, wantedRuns, type Runs } from './runs.js';

const recordSchema = v.looseObject({ names: v.array(v.string()) });

export interface StoredVm {
  readonly folder: VmFolder;
  /** As it was called when it was last backed up; its folder's name if that is not known. */
  readonly name: string;
}

/** Those of that name, UUID or folder; all of them without one. Throws a UsageError if there is none. */
export async function storedVms(repository: Repository, name: string | undefined): Promise<StoredVm[]> {
  const all: StoredVm[] = [];
  for (const folder of await vmFolders(repository)) all.push({ folder, name: await nameOf(folder) });
  if (name === undefined) return all;
  const wanted = name.toLowerCase();
  const found = all.filter((vm) => vm.name === name || vm.folder.key.toLowerCase() === wanted);
  if (found.length > 0) return found;
  const there = all.map((vm) => `${vm.name} (${vm.folder.key})`).join(', ') || 'none';
  throw new UsageError('E_NO_VM', `${repository.path} has no backups of VM ${JSON.stringify(name)} (there: ${there})`);
}

async function nameOf(folder: VmFolder): Promise<string> {
  try {
    const parsed = v.safeParse(recordSchema, JSON.parse(await readFile(folder.record, 'utf8')));
    return (parsed.success ? parsed.output.names[0] : undefined) ?? folder.key;
  } catch {
    return folder.key;
  }
}

export interface FoundRun {
  readonly vm: StoredVm;
  readonly runs: Runs;
  readonly manifest: RunManifest;
}

/** The newest run of a VM is called so, too. */
const LATEST = 'latest';

/**
 * The one run of that name, or whose name begins or ends so. Throws a UsageError `E_NO_BACKUP` if there is none, or several.
 */
export async function findRun(repository: Repository, name: string, vm: string | undefined): Promise<FoundRun> {
  const found: FoundRun[] = [];
  for (const each of await storedVms(repository, vm)) {
    const runs = await readRuns(each.folder);
    const wanted = wantedRuns(runs);
    const fits = name === LATEST ? wanted.slice(-1) : wanted.filter(({ run }) => isIt(run, name));
    found.push(...fits.map((manifest) => ({ vm: each, runs, manifest })));
  }
  const exact = found.filter(({ manifest }) => manifest.run === name);
  const [one, more] = exact.length > 0 ? exact : found;
  if (one !== undefined && more === undefined) return one;
  const list = found.map((each) => `${each.manifest.run} of ${each.vm.name}`).join(', ');
  const what = one === undefined ? 'no run' : `several runs (${list})`;
  throw new UsageError('E_NO_BACKUP', `${repository.path} has ${what} ${JSON.stringify(name)}: see "backup list"`);
}

function isIt(run: string, name: string): boolean {
  return name.length >= 4 && (run.startsWith(name) || run.endsWith(name));
}
