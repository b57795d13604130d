// The acts on a whole repository, each under the lock of the VM whose backups it changes: verify, forget, and recover, which
// removes what killed tools left.
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { BridgeError, describeError, UsageError } from '../../errors.js';
import { throwIfInterrupted } from '../../confirm.js';
import { Deadline } from '../../deadline.js';
import { describeHolders, holdersOfEach } from '../images/image-file.js';
import { isLockedByQemu } from '../images/image-lock.js';
import { findRun, storedVms, type FoundRun } from './find-run.js';
import { dependents, markForgotten, removable, removeRuns, unmarkForgotten } from './forget-run.js';
import { draftRun, type VmFolder } from './layout.js';
import { lockForChange, lockForReading, waitForReaders, type RepositoryLock } from './repository-lock.js';
import { openRepository, type Repository } from './repository.js';
import { requireKey } from './require-key.js';
import { leftFolders, removeLeft } from './run-draft.js';
import { knownProblem } from './run-faults.js';
import { readRuns, wantedRuns, type Runs } from './runs.js';
import { Verifier, type VerifyOptions } from './verify-run.js';

export interface HouseOptions {
  readonly repository: string;
  readonly vm: string | undefined;
  readonly lockWaitMs: number;
  readonly signal: AbortSignal;
  readonly onProgress: (text: string) => void;
  /** One line that people have to see. */
  readonly onWarning: (text: string) => void;
}

export interface VerifiedRun {
  readonly vm: string;
  readonly run: string;
  readonly verifiedAt: string;
  readonly problems: readonly string[];
  /** What was not looked into, for want of its key. */
  readonly unchecked: readonly string[];
}

export interface VerifyRunsOptions extends HouseOptions, Pick<VerifyOptions, 'key'> {
  readonly runs: readonly string[];
  /** They are to be read afterwards: without their key not even their sums are compared. */
  readonly needsKey: boolean;
  readonly limitMs: number;
}

/** Verifies those runs, or all. Throws a UsageError, and a QuiesceError when interrupted: what was found stays recorded. */
export async function verifyRuns(options: VerifyRunsOptions): Promise<readonly VerifiedRun[]> {
  const { signal, key, onProgress } = options;
  const repository = await openRepository(options.repository);
  const deadline = new Deadline(options.limitMs);
  const named = await Promise.all(options.runs.map((run) => findRun(repository, run, options.vm)));
  if (options.needsKey) for (const found of named) await refuseWithoutKey(found, options);
  const verified: VerifiedRun[] = [];
  for (const { folder, name } of await storedVms(repository, options.vm)) {
    const only = named.filter(({ vm }) => vm.folder.key === folder.key).map(({ manifest }) => manifest.run);
    if (named.length > 0 && only.length === 0) continue;
    await using lock = await lockForReading(repository, folder.key, { ...options, operation: 'backup verify' });
    // They may have been forgotten before we said that we read them.
    for (const run of only) await findRun(repository, run, folder.key);
    const runs = await readRuns(folder);
    const verifier = new Verifier(folder, runs.all, { deadline, signal, key, onProgress });
    for (const manifest of wantedRuns(runs)) {
      if (only.length > 0 && !only.includes(manifest.run)) continue;
      throwIfInterrupted(signal, 'what was verified is recorded');
      await lock.check();
      const { run, verifiedAt, problems, unchecked } = await verifier.verify(manifest);
      verified.push({ vm: name, run, verifiedAt, problems, unchecked });
    }
    const now = new Date().toISOString();
    if (named.length > 0) continue;
    for (const { run, reason } of runs.unreadable)
      verified.push({ vm: name, run, verifiedAt: now, problems: [reason], unchecked: [] });
  }
  return verified;
}

async function refuseWithoutKey(found: FoundRun, { signal, key }: VerifyRunsOptions): Promise<void> {
  try {
    await requireKey(found, found.manifest.disks, { signal, key });
  } catch (error) {
    // Damage is what is looked for.
    if (error instanceof BridgeError && error.code === 'E_KEY') throw error;
  }
}

export interface ForgottenRuns {
  readonly vm: string;
  /** Runs that nobody wants any more. */
  readonly forgotten: readonly string[];
  /** Those, and earlier ones, whose files are gone. */
  readonly removed: readonly string[];
  /** Those whose files stay, and the runs that need them. */
  readonly needed: readonly { readonly run: string; readonly by: readonly string[] }[];
}

/** What is to be forgotten: these runs, or all but the newest. */
export interface ForgetOptions extends HouseOptions {
  readonly runs: readonly string[];
  readonly keep: number | undefined;
  readonly dryRun: boolean;
}

/** Forgets runs of one VM, or with `keep` of each. Throws a UsageError. */
export async function forgetRuns(options: ForgetOptions): Promise<readonly ForgottenRuns[]> {
  const repository = await openRepository(options.repository);
  const { keep } = options;
  if (keep !== undefined) {
    const all: ForgottenRuns[] = [];
    for (const { folder, name } of await storedVms(repository, options.vm)) {
      all.push(await forget(repository, folder, name, (runs) => allBut(folder, runs, keep), options));
    }
    return all;
  }
  const found = await Promise.all(options.runs.map((run) => findRun(repository, run, options.vm)));
  const [first] = found;
  if (first === undefined) throw new UsageError('E_NO_BACKUP', 'which runs? Name them, or give --keep');
  const { folder, name } = first.vm;
  const names = found.map(({ manifest }) => manifest.run);
  if (found.some(({ vm }) => vm.folder.key !== folder.key)) {
    throw new UsageError('E_NO_BACKUP', `expected runs of one VM, found ${names.join(', ')}`);
  }
  const choose = async (): Promise<string[]> => {
    // Another process may have forgotten them before we had the lock.
    for (const run of names) await findRun(repository, run, folder.key);
    return names;
  };
  return [await forget(repository, folder, name, choose, options)];
}

async function forget(
  repository: Repository,
  folder: VmFolder,
  vm: string,
  choose: (runs: Runs) => Promise<readonly string[]>,
  options: ForgetOptions,
): Promise<ForgottenRuns> {
  const { signal, lockWaitMs: waitMs, dryRun } = options;
  const locking = { operation: 'backup forget', waitMs, signal };
  await using lock = await lockForChange(repository, folder.key, locking);
  const before = await readRuns(folder);
  const chosen = await choose(before);
  const after = { ...before, forgotten: new Set([...before.forgotten, ...chosen]) };
  const removed = removable(after);
  if (!dryRun) {
    await lock.check();
    try {
      // Before the readers are looked for: who comes later, and was not waited for, does not find them.
      await markForgotten(folder, chosen);
      await waitForReaders(repository, folder.key, locking);
      await lock.check();
    } catch (error) {
      await showAgain(folder, chosen, lock, error);
      throw error;
    }
    await removeRuns(folder, removed);
  }
  const needed = [...after.forgotten]
    .filter((run) => !removed.includes(run) && after.all.some((each) => each.run === run))
    .map((run) => ({ run, by: dependents(after, run) }));
  return { vm, forgotten: [...chosen], removed, needed };
}

/**
 * Nothing is forgotten then. Throws a UsageError that says so if it cannot be undone, or is not ours to undo: who has the
 * lock by now may count on it.
 */
async function showAgain(folder: VmFolder, runs: readonly string[], lock: RepositoryLock, why: unknown): Promise<void> {
  if (runs.length === 0) return;
  try {
    await lock.check();
    await unmarkForgotten(folder, runs);
  } catch (cause) {
    const code = cause instanceof UsageError ? cause.code : 'E_REPOSITORY';
    const left = `not removed, but perhaps no longer shown ("backup list" tells): ${runs.join(', ')}`;
    const then = '"backup recover" removes those that are not shown';
    throw new UsageError(code, `${left}; ${then}; ${describeError(cause)}`, { cause: why });
  }
}

/**
 * The runs that are older than the newest `keep` of which no damage is known: nobody is left with damaged ones alone. Those
 * that are damaged and newer stay.
 */
async function allBut(folder: VmFolder, runs: Runs, keep: number): Promise<string[]> {
  const wanted = wantedRuns(runs);
  let sound = 0;
  let at = wanted.length;
  while (at > 0 && sound < keep) {
    at--;
    const manifest = wanted[at];
    if (manifest !== undefined && (await knownProblem(folder, runs.all, manifest)) === undefined) sound++;
  }
  return wanted.slice(0, at).map(({ run }) => run);
}

export interface RepositoryFinding {
  readonly vm: string;
  /** One sentence: what was found. */
  readonly found: string;
  readonly status: 'done' | 'planned' | 'yours' | 'busy';
  /** One sentence: what was done about it, or has to be. */
  readonly did: string;
  /** To be typed. */
  readonly commands?: readonly string[];
}

/** Removes drafts and what is removed in part, unless somebody is at it. Throws a UsageError. */
export async function recoverRepository(
  options: HouseOptions & { readonly dryRun: boolean },
): Promise<readonly RepositoryFinding[]> {
  const repository = await openRepository(options.repository);
  const findings: RepositoryFinding[] = [];
  for (const { folder, name: vm } of await storedVms(repository, options.vm)) {
    throwIfInterrupted(options.signal, 'recover goes on when it is called again');
    try {
      findings.push(...(await recoverVmFolder(repository, folder, vm, options)));
    } catch (error) {
      if (!(error instanceof BridgeError) || error.code !== 'E_REPOSITORY_BUSY') throw error;
      findings.push({ vm, status: 'busy', found: describeError(error), did: 'left alone' });
    }
  }
  return findings;
}

/** Who still writes to the files of a draft: the jobs of a QEMU outlive a tool that was killed, on whichever host that was. */
async function whyLeft(files: readonly string[]): Promise<string | undefined> {
  const first = 'run "fsfreeze-bridge recover" for the VM';
  const writers = (await holdersOfEach(files)).flat();
  if (writers.length > 0) return `${describeHolders(writers)} still writes to it: ${first} first`;
  for (const file of files.filter((each) => /\.qcow2(\.luks)?$/.test(each))) {
    try {
      if (await isLockedByQemu(file)) return `a QEMU on another machine still writes to it: ${first} there first`;
    } catch (error) {
      return `whether somebody still writes to it is not known, and it is left: ${describeError(error)}`;
    }
  }
  return undefined;
}

async function recoverVmFolder(
  repository: Repository,
  folder: VmFolder,
  vm: string,
  { lockWaitMs: waitMs, signal, dryRun }: HouseOptions & { readonly dryRun: boolean },
): Promise<RepositoryFinding[]> {
  const locking = { operation: 'backup recover', waitMs, signal };
  await using lock = await lockForChange(repository, folder.key, locking);
  const findings: RepositoryFinding[] = [];
  for (const name of await leftFolders(folder)) {
    const path = join(folder.path, name);
    const found =
      draftRun(name) === undefined ? `a run was removed in part: ${path}` : `a run was not finished: ${path}`;
    const files = (await readdir(path)).map((file) => join(path, file));
    const did = await whyLeft(files);
    if (did !== undefined) {
      findings.push({ vm, status: 'yours', found, did });
      continue;
    }
    if (!dryRun) await removeLeft(folder, [name]);
    findings.push({ vm, status: dryRun ? 'planned' : 'done', found, did: 'remove it' });
  }
  const runs = await readRuns(folder);
  for (const { run, reason } of runs.unreadable) {
    const did = 'look at it: while it is there, nothing that it may lie on is removed';
    findings.push({ vm, status: 'yours', found: `run ${run} cannot be read: ${reason}`, did });
  }
  const rest = removable(runs);
  if (rest.length > 0) {
    if (!dryRun) {
      await waitForReaders(repository, folder.key, locking);
      await lock.check();
      await removeRuns(folder, rest);
    }
    const found = `runs were forgotten, and nothing lies on them: ${rest.join(', ')}`;
    findings.push({ vm, status: dryRun ? 'planned' : 'done', found, did: 'remove them' });
  }
  return findings;
}
