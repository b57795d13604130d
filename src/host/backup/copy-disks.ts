// The middle of a backup: everything slow before the hold, the cut under it, and then the copying, while the guest runs. What
// is done is registered to be undone first.
import { randomUUID } from 'node:crypto';
import { unlessAborted, withLimit } from '../../deadline.js';
import { CutError } from '../../errors.js';
import { monotonicMs, roundMs } from '../../linux/clock.js';
import type { Reverter } from '../../reverter.js';
import { backupCut, checkDisks } from '../create/backup-cut.js';
import { cutDisksOf, holdAndCut, type HeldCut } from '../create/held-cut.js';
import { compared, worthOf } from '../create/manifest-cut.js';
import { cutPoint, draftPoint } from '../create/point-draft.js';
import { readWriteCounts, stillDisks } from '../create/write-counts.js';
import { releaseSpace } from '../images/reserve.js';
import { sumFile, type FileSum } from '../repository/extents.js';
import type { RunDraft } from '../repository/run-draft.js';
import type { RunManifest } from '../repository/run-manifest.js';
import type { Marks } from '../sets/point-in-time.js';
import { saveState, saveTexts } from '../sets/saved-files.js';
import { firmwareOf } from '../vm/disk-choice.js';
import { describeMachine } from '../vm/machine-facts.js';
import { placeText } from '../vm/place.js';
import type { BackupJournal } from './backup-journal.js';
import type { BackupAt } from './backup-at.js';
import { dropCheckpointsOf } from './checkpoints.js';
import { atRate, makeTargets, type PlannedTarget } from './backup-targets.js';
import { FixedPace, GuestPace, slowed, type Pacer } from './guest-pace.js';
import type { HeldFiles } from './held-files.js';
import { withOwners } from './like-image.js';
import { checkContinued } from './paused-vm.js';
import type { RepositoryWait } from './repository-wait.js';
import { runManifest } from './run-record.js';
import { SpaceWatch } from './space-watch.js';
import { readRequestTimes } from '../../qmp/request-times.js';
import { measured, progressLine } from '../../qmp/transfer-progress.js';

export interface RunParts {
  readonly run: string;
  readonly id: string;
  readonly begun: Date;
  readonly targets: readonly PlannedTarget[];
  readonly draft: RunDraft;
  readonly wait: RepositoryWait;
  /** What is written to by QEMU, to be held. */
  readonly files: HeldFiles;
  readonly journal: BackupJournal;
  readonly reverter: Reverter;
  /** The disks are cut, and the guest is thawed. */
  readonly onHeld: (held: HeldCut) => void;
}

export interface CopiedRun {
  readonly manifest: RunManifest;
  readonly held: HeldCut;
  /** Files whose space could not be taken beforehand. */
  readonly notReserved: readonly string[];
}

/** How long QEMU may take to end jobs that have copied everything. */
const FINALIZE_MS = 60_000;

/** Throws whatever fails: nothing is published, and the reverter undoes what was done. */
export async function copyDisks(at: BackupAt, given: RunParts): Promise<CopiedRun> {
  const { options, hypervisor, backups, plan, timer, monitorLog, folder, repository, runs } = at;
  const { draft, wait, files, run, id, begun } = given;
  const pacer = await pacerOf(at);
  const { notReserved, notOwned } = await makeTargets(given.targets, options.compression, files, wait);
  const toldOfOwners = (error: unknown): never => {
    throw withOwners(error, notOwned);
  };
  const { texts, folders } = await at.describe();
  const agentSocket = options.vm.agent?.kind === 'socket' ? options.vm.agent.path : undefined;
  const machine = await describeMachine(hypervisor, plan.all, agentSocket);
  const savedTexts = await wait.for('keeping texts', () => saveTexts(draft.path, [...texts, ...machine]));
  const point = await draftPoint(hypervisor, plan, options);
  const rate = await pacer.learn(options.signal);
  const canFollow = backups.changesRates || options.speed !== 'auto';
  const targets = atRate(given.targets, canFollow ? rate : undefined);
  const parts = { ...given, targets };
  await backups.openTargets(targets, parts.reverter).catch(toldOfOwners);
  timer.end('targets');

  const marks: Marks = {};
  // libvirt opens the targets in the cut.
  const { held, worth, findings } = await cutUnderHold(at, parts, marks).catch(toldOfOwners);
  timer.marks(marks);
  monitorLog.end();
  parts.onHeld(held);
  // Its socket serves one at a time, and copying takes its time.
  await plan.agent?.[Symbol.asyncDispose]();
  const state = await inTime(at, 'the state of the VM to be saved', () =>
    saveState(draft.path, [...firmwareOf(plan.all), ...folders], targets[0]?.key),
  );

  const copyStartMs = monotonicMs();
  const copiedBytes = await transfer(at, parts, pacer);
  for (const { file } of targets) await wait.for(`giving back space of ${file}`, () => releaseSpace(file));
  await syncFiles(parts);
  await wait.for('closing files', () => files.close());
  const copyMs = roundMs(monotonicMs() - copyStartMs);
  timer.end('transfer');
  const hashStartMs = monotonicMs();
  const sums = await sumFiles(at, parts, pacer);
  const hashMs = roundMs(monotonicMs() - hashStartMs);
  timer.end('hash');
  const facts = { held, worth, missing: plan.missing, steps: timer.steps, marks, monitorLog: monitorLog.commands };
  const manifest = runManifest({
    folder,
    repositoryId: repository.id,
    run,
    id,
    number: 1 + Math.max(0, ...runs.all.map((each) => each.number)),
    createdAt: begun.toISOString(),
    point: { ...point, ...cutPoint(point.asked, facts), leftOut: [...point.leftOut, ...state.leftOut] },
    worth,
    findings,
    targets,
    copiedBytes,
    sums,
    saved: [...savedTexts, ...state.saved],
    transfer: { copyMs, hashMs },
  });
  return { manifest, held, notReserved };
}

async function cutUnderHold(at: BackupAt, { targets, journal, reverter }: RunParts, marks: Marks) {
  const { options, hypervisor, backups, plan } = at;
  const { agent } = options.vm;
  const session = randomUUID();
  if (plan.agent !== undefined && agent !== undefined) {
    // Durable before the freeze is sent: whoever finds the journal of a killed tool knows whom to thaw.
    const hold = { session, qga: placeText(agent), leaseMs: options.leaseMs, since: new Date().toISOString() };
    await journal.holds(hold);
  }
  const writesBefore = await readWriteCounts(hypervisor);
  await checkDisks(hypervisor, targets);
  // The freeze is registered after it, and so undone before it.
  reverter.push('the jobs of the backup', async () => {
    const vm = await backups.end(targets);
    await dropCheckpointsOf(backups, targets);
    checkContinued(vm, options.onProgress);
  });
  const cut = backupCut(hypervisor, backups, targets);
  const guestDisks = cutDisksOf(plan);
  const held = await holdAndCut(hypervisor, cut, reverter, marks, {
    ...options,
    ...plan,
    cutDisks: guestDisks,
    session,
    agentSocket: agent?.kind === 'socket' ? agent.path : undefined,
  });
  // A guest that may be frozen is told of now, not when everything is copied.
  if (held.thawError !== undefined) throw held.thawError;
  await journal.released();
  const still = stillDisks(plan.chosen, writesBefore, await readWriteCounts(hypervisor).catch(() => undefined));
  const findings = await cut.verify();
  const lost = findings.find(({ isLost }) => isLost);
  if (lost !== undefined) throw new CutError('E_CHANGED', `${lost.doubt ?? ''}; nothing was backed up`);
  const counted = guestDisks.map((disk, index) => ({ ...disk, still: still[index] }));
  const names = guestDisks.map(({ name }) => name);
  return { held, findings, worth: compared(worthOf(held, counted), findings, names) };
}

/** While QEMU copies, a repository that hangs delays writes of the guest: we wait for it no longer than for QEMU. */
async function inTime<T>({ options }: BackupAt, what: string, work: () => Promise<T>): Promise<T> {
  const { signal, stallMs } = options;
  signal.throwIfAborted();
  return await unlessAborted(withLimit(what, stallMs, work()), signal, () => new Error(`interrupted: ${what}`));
}

async function pacerOf({ options, hypervisor }: BackupAt): Promise<Pacer> {
  const { speed } = options;
  return speed === 'auto' ? await GuestPace.begin(() => readRequestTimes(hypervisor)) : new FixedPace(speed);
}

async function transfer(
  { options, backups, repository }: BackupAt,
  parts: RunParts,
  pacer: Pacer,
): Promise<readonly number[]> {
  const { targets, wait } = parts;
  const { signal, stallMs, minFreeBytes } = options;
  const measure = measured();
  // Before QEMU meets the end of it: where the target is full, a write of the guest that waits for its copy fails. Half of
  // what was asked for is kept for the rest of the run, and for what others write.
  const space = new SpaceWatch(repository.path, minFreeBytes / 2, wait.free);
  return await backups.transfer(targets, {
    signal,
    stallMs,
    finalizeMs: FINALIZE_MS,
    pace: pacer.of(),
    // QEMU stands still while it flushes, and so may the guest: little is left for it to do.
    beforeFlush: () => syncFiles(parts),
    onProgress: (progress) => {
      const now = measure(progress);
      options.onProgress(progressLine('backing up', now));
      options.onTransfer(now);
      space.check();
    },
  });
}

/** The wait is what the signal ends: as long as a sync is under way nothing of the files is closed or removed. */
async function syncFiles({ files, wait }: RunParts): Promise<void> {
  await wait.for('syncing what was copied', () => files.sync(new AbortController().signal));
}

async function sumFiles({ options }: BackupAt, { targets, wait }: RunParts, pacer: Pacer): Promise<FileSum[]> {
  const { onProgress } = options;
  const { signal } = new AbortController();
  const sums: FileSum[] = [];
  let read = 0;
  const atPace = slowed(pacer.of());
  const onRead = async (bytes: number): Promise<void> => {
    // Nobody waits for it any more.
    wait.check();
    read += bytes;
    onProgress(`reading again for the sums: ${Math.floor(read / 1024 / 1024)} MiB`);
    await atPace(read);
  };
  for (const { file } of targets) {
    const what = `reading ${file} again for its sums`;
    sums.push(await wait.for(what, () => sumFile(file, { signal, onRead }), { progress: () => read }));
  }
  return sums;
}
