// Tells what is in a repository: the runs of each VM, what they are worth, how large, and what lies on what.
import { defined } from '../../defined.js';
import { BridgeError } from '../../errors.js';
import { chainOf } from './chain.js';
import { storedVms } from './find-run.js';
import { dependents } from './forget-run.js';
import type { VmFolder } from './layout.js';
import { whoChanges } from './repository-lock.js';
import { openRepository } from './repository.js';
import { isEncrypted, type RunManifest } from './run-manifest.js';
import { readRuns, wantedRuns, type Runs } from './runs.js';
import { lastBootVerdict, toldBoot, type ToldBoot } from './boot-verdict.js';
import { lastVerdict, type Verdict } from './verify-run.js';

export interface RunSummary {
  readonly run: string;
  readonly number: number;
  readonly createdAt: string;
  readonly level: RunManifest['level'];
  readonly required: RunManifest['required'];
  /** `full` if every disk is. */
  readonly kind: 'full' | 'incremental';
  readonly disks: number;
  /** A key is needed to read it. */
  readonly isEncrypted: boolean;
  /** Of its own files. */
  readonly bytes: number;
  /** Files of its longest chain. */
  readonly chain: number;
  readonly verified?: Omit<Verdict, 'format' | 'run'>;
  /** The last boot test. */
  readonly booted?: Pick<ToldBoot, 'bootedAt' | 'problems'>;
  /** What a person has to know now. */
  readonly notes: readonly string[];
}

export interface StoredRuns {
  readonly vm: string;
  readonly key: string;
  readonly runs: readonly RunSummary[];
  /** Runs that nobody wants, and others still lie on. */
  readonly forgotten: readonly string[];
  readonly unreadable: Runs['unreadable'];
  /** Who works on the VM's backups now. */
  readonly busy?: string;
}

/** Throws a UsageError. */
export async function listRuns(path: string, name: string | undefined): Promise<readonly StoredRuns[]> {
  const repository = await openRepository(path);
  const stored: StoredRuns[] = [];
  for (const vm of await storedVms(repository, name)) {
    const { folder } = vm;
    const runs = await readRuns(folder);
    const busy = await whoChanges(repository, folder.key);
    const summaries: RunSummary[] = [];
    for (const manifest of wantedRuns(runs)) summaries.push(await summaryOf(folder, runs, manifest));
    const forgotten = runs.all.map(({ run }) => run).filter((run) => runs.forgotten.has(run));
    stored.push({
      vm: vm.name,
      key: folder.key,
      runs: summaries,
      forgotten,
      unreadable: runs.unreadable,
      ...defined({ busy }),
    });
  }
  return stored;
}

async function summaryOf(folder: VmFolder, runs: Runs, manifest: RunManifest): Promise<RunSummary> {
  const { run, number, createdAt, level, required, disks } = manifest;
  const { lengths, notes } = chains(folder, runs, manifest);
  const verified = await verdictOf(folder, run);
  const booted = await lastBootVerdict(folder, run);
  return {
    ...{ run, number, createdAt, level, required },
    kind: disks.every(({ kind }) => kind === 'full') ? 'full' : 'incremental',
    disks: disks.length,
    isEncrypted: isEncrypted(manifest),
    bytes: disks.reduce((sum, { file }) => sum + file.size, 0),
    chain: Math.max(0, ...lengths),
    ...defined({ verified, booted: booted && { bootedAt: booted.bootedAt, problems: booted.problems } }),
    notes: [...notes, ...(verified?.problems ?? []), ...(booted?.problems ?? [])],
  };
}

function chains(folder: VmFolder, { all }: Runs, manifest: RunManifest): { lengths: number[]; notes: string[] } {
  const lengths: number[] = [];
  const notes: string[] = [];
  for (const disk of manifest.disks) {
    try {
      lengths.push(chainOf(folder, all, manifest, disk).length);
    } catch (error) {
      if (!(error instanceof BridgeError)) throw error;
      notes.push(error.message);
    }
  }
  return { lengths, notes };
}

async function verdictOf(folder: VmFolder, run: string): Promise<Omit<Verdict, 'format' | 'run'> | undefined> {
  const verdict = await lastVerdict(folder, run);
  if (verdict === undefined) return undefined;
  const { verifiedAt, problems, unchecked } = verdict;
  return { verifiedAt, problems, unchecked };
}

export interface RunView {
  /** The run's folder. */
  readonly path: string;
  /** Files of each disk, in its order: the newest first, the full one last. */
  readonly chains: readonly (readonly string[])[];
  readonly verified?: Omit<Verdict, 'format' | 'run'>;
  readonly booted?: ToldBoot;
  /** Wanted runs that lie on it. */
  readonly dependents: readonly string[];
  readonly notes: readonly string[];
}

export async function viewRun(folder: VmFolder, runs: Runs, manifest: RunManifest): Promise<RunView> {
  const notes: string[] = [];
  const files = manifest.disks.map((disk) => {
    try {
      return chainOf(folder, runs.all, manifest, disk).map(({ file }) => file);
    } catch (error) {
      if (!(error instanceof BridgeError)) throw error;
      notes.push(error.message);
      return [];
    }
  });
  const verified = await verdictOf(folder, manifest.run);
  const booted = await lastBootVerdict(folder, manifest.run);
  return {
    path: folder.run(manifest.run),
    chains: files,
    ...defined({ verified, booted: booted && toldBoot(booted) }),
    dependents: dependents(runs, manifest.run),
    notes,
  };
}
