// `backup restore --in-place`: makes the images of a VM that is shut off what they were at a run, and writes only what
// differs. What differs is found first, into a draft beside each image: a qcow2 that lies on the run and is rebased on the
// image, whereby qemu-img keeps in it what reads otherwise. Only when all drafts are whole are they merged into the images.
// QEMU records that in the images' dirty bitmaps, so that the next backup is an increment.
import { open, realpath, stat } from 'node:fs/promises';
import * as v from 'valibot';
import type { ConsistencyLevel } from '../../consistency.js';
import { defined } from '../../defined.js';
import { throwIfInterrupted, type Confirm } from '../../confirm.js';
import { Deadline } from '../../deadline.js';
import { BridgeError, CutError, describeError, QuiesceError, UsageError } from '../../errors.js';
import { ownDataFiles } from '../images/data-files.js';
import { exists, syncPath } from '../images/durable-file.js';
import { fileStateOf, isSameState, type FileState } from '../images/file-state.js';
import { makeImage } from '../images/image-file.js';
import type { LuksKey } from '../images/luks-key.js';
import { runQemuImg, type TaskLimits } from '../images/qemu-img-task.js';
import { chainOf, checkLink, type Link } from '../repository/chain.js';
import { chainName } from '../repository/chain-name.js';
import { findRun, type FoundRun } from '../repository/find-run.js';
import { knownDisks } from '../repository/known-disks.js';
import { lockForReading } from '../repository/repository-lock.js';
import { openRepository } from '../repository/repository.js';
import { requireKey } from '../repository/require-key.js';
import type { RunDisk } from '../repository/run-manifest.js';
import { Verifier } from '../repository/verify-run.js';
import { RestoreJournal } from '../sets/restore-journal.js';
import { findAndLockVm, type LockedVm, type LockRequest } from '../sets/vm-lock.js';
import type { DiskImage } from '../sets/vm-record.js';
import { identityKey } from '../vm/identity.js';
import { checkFree } from './free-images.js';
import { checkRoom } from './growth.js';
import { chooseRunDisks } from './run-disks.js';

export interface InPlaceOptions {
  readonly lock: LockRequest;
  readonly monitorTimeoutMs: number;
  readonly repository: string;
  readonly run: string;
  /** Ids or serials of disks; all of them if it is empty. */
  readonly disks: readonly string[];
  /** Images of disks, by their ids, that a person names: whatever this host knows of them. */
  readonly images: ReadonlyMap<string, string>;
  /** Sum what is read first, and compare what was written. */
  readonly verify: boolean;
  /** Of runs that are encrypted. */
  readonly key: LuksKey | undefined;
  readonly dryRun: boolean;
  readonly limitMs: number;
  readonly confirm: Confirm;
  readonly signal: AbortSignal;
  readonly onProgress: (text: string) => void;
  /** One line that people have to see. */
  readonly onWarning: (text: string) => void;
}

export interface RestoredInPlace {
  readonly vm: string;
  readonly run: string;
  readonly createdAt: string;
  readonly level: ConsistencyLevel;
  readonly dryRun: boolean;
  readonly verified: boolean;
  readonly disks: readonly {
    readonly id: string;
    readonly serial?: string;
    readonly file: string;
    /** Clusters of 64 KiB that differed, and were written. */
    readonly bytes: number;
  }[];
}

/** It reads a header. */
const INFO_LIMIT_MS = 60_000;

interface Target {
  readonly disk: RunDisk;
  readonly image: string;
  readonly format: DiskImage['format'];
  /** Where the image keeps its data, if not in itself. */
  readonly dataFiles: readonly string[];
  readonly draft: string;
  /** The files of the run, the newest first. */
  readonly links: readonly Link[];
}

/**
 * Throws a UsageError if the VM runs, or somebody needs one of the images as it is; a CutError `E_VERIFY` for a run that is
 * damaged; a QuiesceError if the answer was no, or when interrupted: nothing was changed then. A CutError `E_COPY` that says
 * so leaves the images in part; the same command goes on.
 */
export async function restoreInPlace(options: InPlaceOptions): Promise<RestoredInPlace> {
  const { dryRun, verify, signal, key, lock, confirm } = options;
  const repository = await openRepository(options.repository);
  await using vm = await findAndLockVm(lock, options.monitorTimeoutMs);
  if (!(await exists(vm.store.folder))) {
    const message = `this host has never worked on VM ${lock.vm.name}: restore it to a folder, and put its images in place`;
    throw new UsageError('E_NO_VM', message);
  }
  const name = identityKey(vm.identity);
  // What is found from now on stays: a run that went while it is written would leave images of two instants.
  await using reading = await lockForReading(repository, name, { ...options, operation: 'backup restore' });
  const found = await findRun(repository, options.run, name);
  const { run, createdAt, level } = found.manifest;
  const limits = { deadline: new Deadline(options.limitMs), signal, key };
  let writes = false;
  await using journal = await RestoreJournal.open(vm.store.folder);
  const targets = await targetsOf(found, vm, options);
  await checkFree(vm, targets, options);
  await checkSizes(targets, signal);
  await verifyRun(found, targets, options, limits);
  try {
    await journal.drafts(targets.map(({ draft }) => draft));
    const bytes: number[] = [];
    const states: FileState[] = [];
    for (const target of targets) {
      states.push(...(await statesOf(target)));
      bytes.push(await findDifferences(target, options, limits));
    }
    await checkRoom(
      targets.map(({ image, dataFiles, disk: { virtualSize } }, at) => {
        return { image: dataFiles[0] ?? image, virtualSize, differing: bytes[at] ?? 0 };
      }),
    );
    if (!dryRun) {
      const images = targets.map(({ image }) => image).join(', ');
      const question = `Everything that was written to ${images} since ${createdAt} is lost. Restore run ${run}?`;
      if (!(await confirm(question))) throw new QuiesceError('E_DECLINED', 'not restored: the answer was no');
      // While somebody thought about the question the VM may have been started.
      await checkFree(vm, targets, options);
      await checkUnchanged(targets, states);
      await reading.check();
      throwIfInterrupted(signal, 'nothing was restored');
      await journal.begin(targets.map(({ image }) => ({ image, repository: repository.path, run })));
      writes = true;
      for (const target of targets) {
        await merge(target, options);
        await journal.done(target.image);
      }
    }
    const restored = targets.map(({ disk: { id, serial }, image }, index) => {
      return { id, ...defined({ serial }), file: image, bytes: bytes[index] ?? 0 };
    });
    return { vm: found.vm.name, run, createdAt, level, dryRun, verified: verify && !dryRun, disks: restored };
  } catch (error) {
    if (writes) throw inPart(run, error);
    throwIfInterrupted(signal, 'nothing was restored');
    if (error instanceof BridgeError) throw error;
    throw new CutError('E_COPY', `nothing was restored: ${describeError(error)}`, { cause: error });
  }
}

function inPart(run: string, cause: unknown): CutError {
  const message = `run ${run} is restored only in part, and the VM must not be started before it is done again`;
  return new CutError('E_COPY', `${message}: ${describeError(cause)}`, { cause });
}

/** Each disk of the run, with the image that it is now. Throws a UsageError if that is not known. */
async function targetsOf(
  found: FoundRun,
  vm: LockedVm,
  { lock: { stateDir }, disks: named, images, key, signal }: InPlaceOptions,
): Promise<Target[]> {
  const targets: Target[] = [];
  const { manifest, runs } = found;
  const disks = chooseRunDisks(manifest, named);
  const stray = [...images.keys()].find((id) => !disks.some((disk) => disk.id === id));
  if (stray !== undefined) {
    const there = disks.map(({ id }) => id).join(', ');
    throw new UsageError('E_DISK', `--image ${stray}=...: expected the id of a disk that is restored (${there})`);
  }
  await requireKey(found, disks, { key, signal });
  for (const disk of disks) {
    const confirmed = images.get(disk.id);
    const [known] = confirmed === undefined ? await knownDisks(manifest.run, [disk], { ...vm, stateDir }) : [];
    const { file, format } = known ?? { file: confirmed ?? '', format: disk.source.format };
    const image = await imageFileOf(disk, file);
    const links = chainOf(found.vm.folder, runs.all, manifest, disk);
    for (const link of links) await checkLink(link, { key, signal });
    const draft = `${image}.restore-${manifest.id}`;
    // Ours went when the journal was opened.
    if (await exists(draft)) throw new UsageError('E_NAME_TAKEN', `${draft} is there, and not ours: remove it`);
    const dataFiles = await ownDataFiles({ file: image, format });
    for (const file of dataFiles) await imageFileOf(disk, file);
    targets.push({ disk, image, format, dataFiles, draft, links });
  }
  return targets;
}

/** The image itself: its draft lies beside it. Throws a UsageError if it is no file. */
async function imageFileOf({ id }: RunDisk, name: string): Promise<string> {
  const found = await stat(name).catch((cause: unknown) => {
    throw new UsageError('E_NO_IMAGE', `${name}, the image of disk ${id}, cannot be found`, { cause });
  });
  if (found.isFile()) return await realpath(name);
  const message = `${name}, the image of disk ${id}, is no file: restore the disk to a folder with --format raw, and copy it`;
  throw new UsageError('E_TARGET', message);
}

/** Throws a UsageError if somebody wrote to an image since: its draft does not know what. */
async function checkUnchanged(targets: readonly Target[], states: readonly FileState[]): Promise<void> {
  const before = [...states];
  for (const target of targets) {
    const now = await statesOf(target);
    if (before.splice(0, now.length).every((state, index) => isSameState(state, now[index] ?? state))) continue;
    const message = `${target.image} was written to after it was compared (the VM ran?): nothing was restored, do it again`;
    throw new UsageError('E_NO_IMAGE', message);
  }
}

async function statesOf({ image, dataFiles }: Target): Promise<FileState[]> {
  return await Promise.all([image, ...dataFiles].map(fileStateOf));
}

/** Throws a UsageError if an image has another size than the disk of the run. */
async function checkSizes(targets: readonly Target[], signal: AbortSignal): Promise<void> {
  for (const { disk, image, format } of targets) {
    const size = await virtualSizeOf(image, format, signal);
    if (size === disk.virtualSize) continue;
    const message = `${image} has ${size} bytes, disk ${disk.id} had ${disk.virtualSize}: restore it to a folder`;
    throw new UsageError('E_TARGET', message);
  }
}

const infoSchema = v.object({ 'virtual-size': v.pipe(v.number(), v.safeInteger()) });

async function virtualSizeOf(file: string, format: string, signal: AbortSignal): Promise<number> {
  const limits = { deadline: new Deadline(INFO_LIMIT_MS), signal };
  const { stdout } = await runQemuImg(['info', '--output=json', '-f', format, file], limits);
  return v.parse(infoSchema, JSON.parse(stdout))['virtual-size'];
}

async function verifyRun(
  { manifest, runs, vm: { folder } }: FoundRun,
  targets: readonly Target[],
  { verify, onProgress }: InPlaceOptions,
  limits: TaskLimits,
): Promise<void> {
  if (!verify) return;
  const verifier = new Verifier(folder, runs.all, { ...limits, key: limits.key, onProgress });
  const { problems } = await verifier.findingsOf({ ...manifest, disks: targets.map(({ disk }) => disk) });
  if (problems.length > 0) throw new CutError('E_VERIFY', `run ${manifest.run} is damaged: ${problems.join('; ')}`);
}

/** Makes the draft, durable when it returns, and gives the bytes in it. */
async function findDifferences(target: Target, { onProgress }: InPlaceOptions, limits: TaskLimits): Promise<number> {
  const { disk, image, format, draft, links } = target;
  // It holds what is in the guest's disk: nobody but root reads it.
  await (await open(draft, 'wx', 0o600)).close();
  await makeImage({ file: draft, virtualSize: disk.virtualSize, compression: 'zlib' });
  // Its header has no room for the name of a long chain: that it lies on it is said to qemu-img alone.
  const onRun = chainName([{ file: draft }, ...links]);
  await runQemuImg(['rebase', '-p', '-b', image, '-F', format, onRun], {
    ...limits,
    onProgress: (percent) => {
      onProgress(`comparing disk ${disk.id}: ${Math.floor(percent)} %`);
    },
  });
  await syncPath(draft);
  const { stdout } = await runQemuImg(['map', '--output=json', '-f', 'qcow2', draft], limits);
  return v
    .parse(mapSchema, JSON.parse(stdout))
    .reduce((sum, { depth, length }) => (depth === 0 ? sum + length : sum), 0);
}

const mapSchema = v.array(v.object({ depth: v.number(), length: v.number() }));

/** By no signal and no limit: images that are written in part are worth nothing. */
const TO_THE_END = { deadline: undefined, signal: new AbortController().signal };

async function merge(target: Target, { verify, key, onProgress }: InPlaceOptions): Promise<void> {
  const { disk, image, format, dataFiles, draft, links } = target;
  const tell = (doing: string) => (percent: number) => {
    onProgress(`${doing} disk ${disk.id}: ${Math.floor(percent)} %`);
  };
  // -d: the draft goes as a whole.
  await runQemuImg(['commit', '-p', '-d', '-f', 'qcow2', draft], { ...TO_THE_END, onProgress: tell('restoring') });
  for (const file of [image, ...dataFiles]) await syncPath(file);
  if (!verify) return;
  const { exitCode } = await runQemuImg(['compare', '-p', '-F', format, chainName(links), image], {
    ...TO_THE_END,
    key,
    answers: [1],
    onProgress: tell('verifying'),
  });
  if (exitCode !== 0) throw new CutError('E_VERIFY', `${image} is not what the backup holds`);
}
