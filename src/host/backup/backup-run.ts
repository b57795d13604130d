// `backup run`: holds the guest, lets QEMU begin to copy all disks at one instant, lets the guest go, and publishes the run
// once everything is copied, summed and on the disk. Only then do checkpoints advance, so that a run which fails or is
// killed at any moment costs nothing but itself (settle-backup.ts).
import { randomBytes } from 'node:crypto';
import { basename, join } from 'node:path';
import { defined } from '../../defined.js';
import { satisfies } from '../../consistency.js';
import { throwIfInterrupted } from '../../confirm.js';
import {
  BridgeError,
  CutError,
  describeError,
  QuiesceError,
  ThawUnconfirmedError,
  UnreachableError,
  UsageError,
} from '../../errors.js';
import { Reverter } from '../../reverter.js';
import type { HeldCut } from '../create/held-cut.js';
import { MonitorLog } from '../create/monitor-log.js';
import { StepTimer } from '../create/step-timer.js';
import { exists, writeDurably } from '../images/durable-file.js';
import { runName, VmFolder } from '../repository/layout.js';
import { lockForChange } from '../repository/repository-lock.js';
import { makeRepository, openIfThere, type Repository } from '../repository/repository.js';
import { leftFolders, removeLeft, RunDraft } from '../repository/run-draft.js';
import type { RunManifest } from '../repository/run-manifest.js';
import { readRuns, type Runs } from '../repository/runs.js';
import type { Manifest } from '../sets/manifest.js';
import type { ManifestStore } from '../sets/manifest-store.js';
import { noteDisks } from '../sets/disk-images.js';
import { refuseHalfRestored } from '../sets/restore-journal.js';
import { entryOrRefuse } from '../sets/owner-lock.js';
import type { LeftOut } from '../vm/disk-choice.js';
import type { BackupHost } from '../vm/hypervisor.js';
import { identityKey } from '../vm/identity.js';
import type { BackupAt, BackupOptions } from './backup-at.js';
import { BackupJournal, backupJournalFile, readBackupJournal } from './backup-journal.js';
import { checkRepositoryRoom, planBackup, readRepositoryRoom } from './backup-plan.js';
import { targetsOf } from './backup-targets.js';
import { checkpointsToKeep, isOfRepository, isSuperfluous } from './checkpoints.js';
import { copyDisks, type CopiedRun } from './copy-disks.js';
import { HeldFiles } from './held-files.js';
import { openForBackup, shutOffOptions, shutOffPlan } from './open-for-backup.js';
import { RepositoryWait } from './repository-wait.js';
import { refuseSecond } from './second-repository.js';
import { settleBackup } from './settle-backup.js';
import { tellCompletion } from './tell-completion.js';

export interface BackupResult {
  readonly manifest: RunManifest;
  /** The run's folder. */
  readonly path: string;
  /** The level reached is the one asked for, or better. */
  readonly satisfied: boolean;
  readonly missing: readonly LeftOut[];
  /** What the guest's writers were told, once the run was there. */
  readonly completion: Manifest['completion'];
  /** For people: what did not go as it should, though the run is there. */
  readonly troubles: readonly string[];
}

/** How long a repository may take to forget a draft: one that hangs must not keep us from telling what happened. */
const REMOVE_MS = 60_000;

/**
 * Makes a run. Throws a UsageError, UnreachableError, QuiesceError, CutError or ThawUnconfirmedError: except for the last
 * the guest is thawed, and in all cases no run was made; what could not be undone `recover` undoes.
 */
export async function backupVm(given: BackupOptions): Promise<BackupResult> {
  const timer = new StepTimer();
  const monitorLog = new MonitorLog();
  const wait = new RepositoryWait(given.repository, given);
  const there = await wait.for('opening it', () => openIfThere(given.repository));
  await using open = await openForBackup(given, there, {
    timeoutMs: given.monitorTimeoutMs,
    log: monitorLog.note,
  });
  const options = 'drives' in open ? shutOffOptions(given, open) : given;
  const { hypervisor, store, identity } = open;
  const { backups } = hypervisor;
  await refuseHalfRestored(store.folder);
  await settleLeft(store, backups, options);
  await backups.refuseOtherJob();
  // Another tool may have made it while the VM was waited for, and backed up this very VM to it.
  const present = there ?? (await wait.for('opening it', () => openIfThere(given.repository)));
  if (present === undefined) await refuseSecond(given, hypervisor, backups);
  const repository = present ?? (await wait.for('making it', () => makeRepository(given.repository)));
  const folder = new VmFolder(repository.path, identityKey(identity));
  const locking = { ...options, operation: 'backup run', waitMs: options.lockWaitMs };
  await using lock = await wait.for('locking it', async () => {
    const taken = await lockForChange(repository, folder.key, locking);
    // Nobody waits for it any more.
    if (wait.isGivenUp) await taken[Symbol.asyncDispose]();
    return taken;
  });
  await wait.for('removing what was left', async () => {
    await removeLeft(folder, await leftFolders(folder));
  });
  const runs = await wait.for('reading its runs', () => readRuns(folder));
  await dropLeft(backups, repository, runs, options);
  // It reads what the run may lie on.
  const planned = await wait.for('planning a run', async () => {
    const made = await planBackup(hypervisor, repository.id, folder, runs, options);
    if (wait.isGivenUp) await made.agent?.[Symbol.asyncDispose]();
    return made;
  });
  const plan = 'drives' in open ? shutOffPlan(planned, open) : planned;
  try {
    if (!('drives' in open)) await noteDisks(given.stateDir, identity, plan.all, (await store.readAll()).manifests);
    const room = await wait.for('asking for its free space', () => {
      return readRepositoryRoom(repository.path, plan.planned, options.minFreeBytes);
    });
    checkRepositoryRoom(repository.path, room, options);
    timer.end('inspect');
    const describe = 'drives' in open ? open.describe : () => hypervisor.describe();
    const of = { options, repository, folder, runs, lock, hypervisor, describe, backups };
    return await makeRun({ ...of, store, plan, timer, monitorLog }, wait);
  } finally {
    await plan.agent?.[Symbol.asyncDispose]();
  }
}

async function settleLeft(store: ManifestStore, backups: BackupHost, options: BackupOptions): Promise<void> {
  const found = await readBackupJournal(store.folder);
  const entry = entryOrRefuse(backupJournalFile(store.folder), found);
  // Whoever holds the VM's lock is the only one at it.
  if (entry === undefined || found?.owner === 'alive') return;
  if (entry.hold !== undefined) {
    const message = `a backup (${entry.run}) was killed while it held the guest: run "fsfreeze-bridge recover" first`;
    throw new UsageError('E_UNFINISHED', message);
  }
  // What hangs there would hang for ever, with the VM locked.
  const wait = new RepositoryWait(entry.repository.path, options);
  await wait.for(`which run ${entry.run} was left in`, () => wait.free().catch(() => 0));
  const waitMs = options.lockWaitMs;
  const settled = await settleBackup(store.folder, entry, { backups, waitMs, signal: options.signal });
  if (settled === 'removed') options.onProgress(`run ${entry.run}, whose tool was killed, is undone`);
  if (settled === 'lost') {
    const { path } = entry.repository;
    options.onProgress(`run ${entry.run}, whose tool was killed, is ended; its repository ${path} is not there`);
  }
}

/** No run needs them gone: one that stays is told of again when the run is there. */
async function dropLeft(backups: BackupHost, { id }: Repository, runs: Runs, options: BackupOptions): Promise<void> {
  try {
    await backups.dropCheckpoints(isSuperfluous(id, everyCheckpoint(runs)), isOfRepository(id));
  } catch (error) {
    if (error instanceof UnreachableError) throw error;
    options.onProgress(`checkpoints of runs that are gone were not all forgotten: ${describeError(error)}`);
  }
}

/** Those of all runs that are there: others are left of runs that failed, or are gone. */
function everyCheckpoint(runs: Runs): ReadonlySet<string> {
  return checkpointsToKeep(runs, runs.all.length + 1);
}

async function makeRun(at: BackupAt, wait: RepositoryWait): Promise<BackupResult> {
  const { options, repository, folder, store, plan } = at;
  const id = randomBytes(4).toString('hex');
  const begun = new Date();
  const run = runName(begun, id);
  const { compression } = options;
  const encrypt = options.encrypt === false ? undefined : options.encrypt;
  const path = folder.draft(run);
  const named = { repositoryId: repository.id, sharedCheckpoint: at.backups.checkpointsAreShared, run, id, path };
  const targets = targetsOf(plan.planned, { ...named, compression, encrypt });
  const journal = await BackupJournal.begin(store.folder, {
    repository: { path: repository.path, id: repository.id },
    key: folder.key,
    run,
    targets: targets.map(({ node, jobId, file, checkpoint }) => ({ node, jobId, file, ...defined({ checkpoint }) })),
    pausedBefore: plan.status === 'io-error',
  });
  const reverter = new Reverter();
  let copied: CopiedRun;
  let held: HeldCut | undefined;
  const onHeld = (cut: HeldCut): void => {
    held = cut;
  };
  try {
    // The draft goes last: as long as QEMU may write to it, it stays.
    const draft = await wait.for('beginning a run', () => RunDraft.begin(folder, run));
    const files = new HeldFiles();
    // One after the other: each that hangs keeps one of the few threads that do all work on files.
    const remove = async (): Promise<void> => {
      await wait.idle();
      await files.close();
      await draft.remove();
    };
    reverter.push(`draft ${draft.path}`, remove, REMOVE_MS);
    copied = await copyDisks(at, { run, id, begun, targets, draft, wait, files, journal, reverter, onHeld });
    const { manifest } = copied;
    const check = async (): Promise<void> => {
      await checkBases(folder, manifest);
      await at.lock.check();
      // Whoever is told that it failed must not find it.
      wait.check();
    };
    const publish = (): Promise<void> => draft.publish(manifest, check);
    await wait.for('publishing the run', publish, { isInterruptible: false });
  } catch (error) {
    const told = await undo(reverter, journal, options.signal, error);
    // Interrupted or not: its writers must not forget what this run was to keep.
    await tellCompletion(options, held, 'failed', new AbortController().signal);
    throw told;
  }
  reverter.keep();
  return await afterwards(at, wait, copied, journal);
}

/** Throws a UsageError `E_REPOSITORY_BUSY` if what the run lies on is gone: somebody took the lock as one that was lost. */
async function checkBases(folder: VmFolder, { disks }: RunManifest): Promise<void> {
  for (const { base } of disks) {
    if (base === undefined || (await exists(join(folder.run(base.run), base.name)))) continue;
    const message = `run ${base.run}, which this one lies on, was removed meanwhile: another host took the lock`;
    throw new UsageError('E_REPOSITORY_BUSY', message);
  }
}

/** Undoes everything, and gives the error to throw: the one that endangers the guest, if there is one. */
async function undo(reverter: Reverter, journal: BackupJournal, signal: AbortSignal, error: unknown): Promise<unknown> {
  try {
    await reverter.revert();
  } catch (undoError) {
    await journal.leave();
    const failures: unknown[] = undoError instanceof AggregateError ? undoError.errors : [undoError];
    const all = [error, ...failures];
    const cause = new AggregateError(all, all.map(describeError).join('; '));
    const grave = all.flatMap((each) => [each, each instanceof Error ? each.cause : undefined]);
    const unconfirmed = grave.find((each) => each instanceof ThawUnconfirmedError);
    if (unconfirmed !== undefined) return new ThawUnconfirmedError(unconfirmed.code, unconfirmed.message, { cause });
    const message = 'the backup failed, and not everything of it could be undone: run "fsfreeze-bridge recover"';
    return new CutError('E_UNDO', message, { cause });
  }
  if (error instanceof ThawUnconfirmedError) {
    await journal.leave();
    return error;
  }
  await journal.end();
  try {
    throwIfInterrupted(signal, 'the guest is thawed, and nothing of the backup is left');
  } catch (interrupted) {
    return interrupted;
  }
  const told = [UsageError, UnreachableError, QuiesceError, CutError];
  if (told.some((Kind) => error instanceof Kind)) return error;
  const code = error instanceof BridgeError ? error.code : 'E_BACKUP';
  const message = `the backup failed, and nothing of it is left: ${describeError(error)}`;
  return new CutError(code, message, { cause: error });
}

/** The run is there: checkpoints advance, and the guest's writers are told. Whatever fails now is a trouble, no more. */
async function afterwards(
  { options, repository, folder, backups, plan }: BackupAt,
  wait: RepositoryWait,
  { manifest, held, notReserved }: CopiedRun,
  journal: BackupJournal,
): Promise<BackupResult> {
  const troubles = notReserved.map((file) => {
    return `the space for ${basename(file)} could not be taken before the guest was held: had the repository run full, writes of the guest could have failed`;
  });
  const trouble = (what: string) => (error: unknown) => {
    troubles.push(`${what}: ${describeError(error)}`);
  };
  await journal.end();
  const isInterruptible = false;
  const kept = async (): Promise<void> => {
    const runs = await wait.for('reading its runs', () => readRuns(folder), { isInterruptible });
    const keep = checkpointsToKeep(runs, options.keepCheckpoints);
    await backups.dropCheckpoints(isSuperfluous(repository.id, keep), isOfRepository(repository.id));
  };
  await kept().catch(trouble(`checkpoints beyond the newest ${options.keepCheckpoints} were not all forgotten`));
  const record = {
    format: 1,
    key: folder.key,
    names: [options.vm.name],
    uuid: manifest.vm.uuid,
    lastRun: manifest.run,
  };
  const keepRecord = (): Promise<void> => writeDurably(folder.record, `${JSON.stringify(record, undefined, 2)}\n`);
  await wait.for('recording the VM', keepRecord, { isInterruptible }).catch(trouble(folder.record));
  const satisfied = satisfies(manifest.level, manifest.required);
  const outcome = satisfied && held.doubt === undefined ? 'ok' : 'failed';
  const completion = await tellCompletion(options, held, outcome, options.signal);
  const path = folder.run(manifest.run);
  return { manifest, path, satisfied, missing: plan.missing, completion, troubles };
}
