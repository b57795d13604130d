// `backup restore`: makes the disks of a run in a folder, flat. Every layer is compared with its record and opened by it;
// the folder has its name once everything in it is whole, compared and on the disk.
import { mkdir, rename, rm, statfs } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { ConsistencyLevel } from '../../consistency.js';
import { throwIfInterrupted } from '../../confirm.js';
import { Deadline } from '../../deadline.js';
import { BridgeError, CutError, describeError } from '../../errors.js';
import { syncPath } from '../images/durable-file.js';
import type { LuksKey } from '../images/luks-key.js';
import { runQemuImg, type TaskLimits } from '../images/qemu-img-task.js';
import { chainOf, checkLink, type Link } from '../repository/chain.js';
import { chainName } from '../repository/chain-name.js';
import { findToRead } from '../repository/find-to-read.js';
import { diskStem } from '../repository/layout.js';
import { openRepository } from '../repository/repository.js';
import { requireKey } from '../repository/require-key.js';
import { Verifier } from '../repository/verify-run.js';
import { neededFor } from './growth.js';
import { checkNewFolder, draftOf } from './new-folder.js';
import { chooseRunDisks } from './run-disks.js';

export const restoreFormats = ['qcow2', 'raw'] as const;

export interface RestoreOptions {
  readonly repository: string;
  readonly run: string;
  readonly vm: string | undefined;
  /** Absolute; must not be there, its folder must. */
  readonly target: string;
  readonly format: (typeof restoreFormats)[number];
  /** Ids or serials of disks; all of them if it is empty. */
  readonly disks: readonly string[];
  /** Sum what is read first, and compare what was written. */
  readonly verify: boolean;
  /** Of runs that are encrypted. */
  readonly key: LuksKey | undefined;
  readonly limitMs: number;
  readonly signal: AbortSignal;
  readonly onProgress: (text: string) => void;
  /** One line that people have to see. */
  readonly onWarning: (text: string) => void;
}

export interface RestoredRun {
  readonly vm: string;
  readonly run: string;
  readonly createdAt: string;
  readonly level: ConsistencyLevel;
  readonly target: string;
  readonly verified: boolean;
  readonly disks: readonly {
    readonly id: string;
    readonly serial?: string;
    readonly file: string;
    readonly format: string;
    readonly virtualSize: number;
    readonly level: ConsistencyLevel;
  }[];
}

/**
 * Throws a UsageError for a run, disk, key or folder that cannot be used, a CutError `E_VERIFY` if a file of the run is not what
 * it was, a QuiesceError when interrupted. Nothing is left of what failed.
 */
export async function restoreRun(options: RestoreOptions): Promise<RestoredRun> {
  const { target, signal, format, verify, key } = options;
  const repository = await openRepository(options.repository);
  const reading = { ...options, operation: 'backup restore' };
  await using found = await findToRead(repository, options.run, options.vm, reading);
  const { vm, runs, manifest, lock } = found;
  const disks = chooseRunDisks(manifest, options.disks);
  await checkNewFolder(target);
  const limits = { deadline: new Deadline(options.limitMs), signal, key };
  const draft = draftOf(target);
  try {
    await requireKey(found, disks, limits);
    if (verify) {
      const verifier = new Verifier(vm.folder, runs.all, { ...limits, onProgress: options.onProgress });
      const { problems } = await verifier.findingsOf({ ...manifest, disks });
      if (problems.length > 0) throw new CutError('E_VERIFY', `run ${manifest.run} is damaged: ${problems.join('; ')}`);
    }
    await mkdir(draft, { mode: 0o750 });
    const restored: RestoredRun['disks'][number][] = [];
    for (const disk of disks) {
      const links = chainOf(vm.folder, runs.all, manifest, disk);
      for (const link of links) await checkLink(link, limits);
      const name = `${diskStem(disk.file.name)}.${format}`;
      await restoreDisk(links, join(draft, name), options, limits);
      const { id, serial, virtualSize, level } = disk;
      const file = join(target, name);
      restored.push({ id, ...(serial === undefined ? {} : { serial }), file, format, virtualSize, level });
    }
    await syncPath(draft);
    await lock.check();
    await checkNewFolder(target);
    await rename(draft, target);
    await syncPath(dirname(target));
    const { run, createdAt, level } = manifest;
    return { vm: vm.name, run, createdAt, level, target, verified: verify, disks: restored };
  } catch (error) {
    await rm(draft, { recursive: true, force: true });
    throwIfInterrupted(signal, 'nothing was restored, and nothing of it is left');
    if (error instanceof BridgeError) throw error;
    throw new CutError('E_COPY', `run ${manifest.run} was not restored: ${describeError(error)}`, { cause: error });
  }
}

async function restoreDisk(
  links: readonly Link[],
  file: string,
  { format, verify, onProgress }: RestoreOptions,
  limits: TaskLimits,
): Promise<void> {
  const source = chainName(links);
  const needed = await neededFor(source, format, limits);
  const { bavail, bsize } = await statfs(dirname(file));
  // A raw image has holes: what it takes is known only as qcow2's measure tells it.
  if (format === 'qcow2' && bavail * bsize < needed) {
    const message = `no space in ${dirname(dirname(file))}: ${bavail * bsize} bytes free, expected ${needed}`;
    throw new CutError('E_NO_SPACE', message);
  }
  const name = basename(file);
  const tell = (doing: string) => (percent: number) => {
    onProgress(`${doing} ${name}: ${Math.floor(percent)} %`);
  };
  await runQemuImg(['convert', '-p', '-O', format, source, file], { ...limits, onProgress: tell('restoring') });
  // qemu-img does not sync.
  await syncPath(file);
  if (!verify) return;
  const { exitCode, stdout: words } = await runQemuImg(['compare', '-p', '-F', format, source, file], {
    ...limits,
    answers: [1],
    onProgress: tell('comparing'),
  });
  if (exitCode === 0) return;
  throw new CutError('E_VERIFY', `${name} is not what the backup holds: ${(words.split('\r').at(-1) ?? '').trim()}`);
}
