// Names checkpoints, and chooses the one since which a disk is backed up. A checkpoint is kept by the VM, in the image
// itself where that can be; its name says of which repository, run and disk it is the record. So whatever became of the
// VM meanwhile (a snapshot, a commit, a revert, a restart from other images), what is found under a name tells what
// differs from that file of that run.
import type { VmDisk } from '../../qmp/block-graph.js';
import { BridgeError, UsageError } from '../../errors.js';
import { chainOf, checkLink } from '../repository/chain.js';
import type { VmFolder } from '../repository/layout.js';
import { wantedRuns, type Runs } from '../repository/runs.js';
import type { RunDisk, RunManifest } from '../repository/run-manifest.js';
import { faultOf } from '../repository/run-faults.js';
import type { BackupHost, Checkpoint, CheckpointLife } from '../vm/hypervisor.js';
import { whyNotAlike, type EncryptionAsked } from './encryption.js';

/** Of the disk at `index`, or of all disks of the run. */
export function checkpointName(repository: string, run: string, index: number | undefined): string {
  return `${prefixOf(repository)}${run}${index === undefined ? '' : `-${index}`}`;
}

function prefixOf(repository: string): string {
  return `fsb-${repository}-`;
}

/** The id of the repository whose checkpoint has that name; undefined if it is none of ours. */
export function repositoryOf(checkpoint: string): string | undefined {
  return /^fsb-([0-9a-f]{8})-/.exec(checkpoint)?.[1];
}

export function isOfRepository(repository: string): (name: string) => boolean {
  const prefix = prefixOf(repository);
  return (name) => name.startsWith(prefix);
}

/** The checkpoints of this repository in VMs that are not among those kept. */
export function isSuperfluous(repository: string, kept: ReadonlySet<string>): (name: string) => boolean {
  const isOurs = isOfRepository(repository);
  return (name) => isOurs(name) && !kept.has(name);
}

/**
 * The checkpoints of each disk's newest `count` runs that somebody wants: disks may be backed up at different times. None
 * from before it was resized: what a bitmap recorded beyond a disk's end is gone when the disk is as large as before.
 */
export function checkpointsToKeep(runs: Runs, count: number): ReadonlySet<string> {
  const counts = new Map<string, number>();
  const kept = new Set<string>();
  for (const manifest of wantedRuns(runs).toReversed()) {
    for (const disk of manifest.disks) {
      const before = counts.get(disk.id) ?? 0;
      counts.set(disk.id, before + 1);
      if (before >= count || disk.checkpoint === undefined) continue;
      if (resizedSince(runs, manifest, disk) === undefined) kept.add(disk.checkpoint);
    }
  }
  return kept;
}

/** A run after that one in which the disk, under its name of then or of now, had another size. */
function resizedSince({ all }: Runs, { run }: RunManifest, then: RunDisk, nowId = then.id): RunManifest | undefined {
  const isResized = ({ id, virtualSize }: RunDisk): boolean =>
    (id === then.id || id === nowId) && virtualSize !== then.virtualSize;
  const later = all.slice(all.findIndex((each) => each.run === run) + 1);
  return later.find(({ disks }) => disks.some(isResized));
}

/** Forgets those of a run that came to nothing: the ones before it went on recording. */
export async function dropCheckpointsOf(
  backups: BackupHost,
  targets: readonly { readonly checkpoint?: string | undefined }[],
): Promise<void> {
  const names = new Set(targets.map(({ checkpoint }) => checkpoint));
  await backups.dropCheckpoints((name) => names.has(name));
}

/** What a disk is backed up since. */
export type Base =
  | {
      readonly kind: 'incremental';
      readonly manifest: RunManifest;
      readonly file: RunDisk;
      readonly since: Checkpoint;
      readonly why: string;
    }
  | { readonly kind: 'full'; readonly why: string };

export interface BaseOptions extends EncryptionAsked {
  readonly folder: VmFolder;
  readonly runs: Runs;
  /** Of the disk's image, and of those that it lies on. */
  readonly inodes: readonly string[];
  /** Files that a chain may have at most. */
  readonly maxChain: number;
}

/**
 * The newest run that the disk can be an increment of, else why there is none: the reason is that of the newest run which
 * would have been one. A chain that is long enough, was found damaged or failed a boot test is ended. Throws a UsageError
 * `E_KEY` if the key does not open it.
 */
export async function chooseBase(
  disk: VmDisk,
  checkpoints: readonly Checkpoint[],
  life: CheckpointLife,
  options: BaseOptions,
): Promise<Base> {
  const wanted = wantedRuns(options.runs).toReversed();
  if (wanted.length === 0) return { kind: 'full', why: 'no earlier run is there' };
  let reason: string | undefined;
  for (const manifest of wanted) {
    for (const [since, ofIt] of withDisks(checkpoints, manifest)) {
      const fitting = ofIt.filter((each) => fits(since, ofIt.length === 1, disk, options.inodes, each));
      const [file] = fitting;
      if (file === undefined || fitting.length > 1) {
        const whose = file === undefined ? 'none of theirs' : 'that of more than one';
        reason ??= `no increment of run ${manifest.run}: which of its disks this one was is not known, its image is ${whose}`;
        continue;
      }
      const { why, endsChain } = await whyNoBase(disk, since, manifest, file, options);
      if (why === undefined) {
        return { kind: 'incremental', manifest, file, since, why: `what changed since run ${manifest.run}` };
      }
      reason ??= `no increment of run ${manifest.run}: ${why}`;
      if (endsChain === true) return { kind: 'full', why: reason };
    }
  }
  if (reason !== undefined) return { kind: 'full', why: reason };
  return { kind: 'full', ...whyNone(disk, wanted, life) };
}

/** The checkpoints of the run, each with the disks of the run that it is of. */
function withDisks(checkpoints: readonly Checkpoint[], { disks }: RunManifest): [Checkpoint, RunDisk[]][] {
  return checkpoints
    .map((each): [Checkpoint, RunDisk[]] => [each, disks.filter(({ checkpoint }) => checkpoint === each.name)])
    .filter(([, ofIt]) => ofIt.length > 0);
}

/** Its name tells which disk of a run a checkpoint is of; its image, whatever it is called now, that it is the one. */
function fits(
  { ofProcess = false }: Checkpoint,
  isOnly: boolean,
  disk: VmDisk,
  inodes: readonly string[],
  of: RunDisk,
): boolean {
  if (!isOnly) return wasOn(disk, inodes, of);
  // It stays where another file is put below it (blockdev-reopen).
  return !ofProcess || sharesImage(disk, inodes, of);
}

/** Any image of the one is one of the other: merges take layers out of the middle. */
function sharesImage({ file, backingFiles }: VmDisk, inodes: readonly string[], { source }: RunDisk): boolean {
  const then = named([source.file, ...(source.below ?? [])], source.inodes ?? []);
  return named([file, ...backingFiles], inodes).some((image) => then.some((each) => isOne(image, each)));
}

/**
 * One of the two images lies on the other, or they are one: snapshots and commits move a VM up and down such a chain. It is the
 * same file under the same name: images may have been exchanged.
 */
function wasOn({ file, backingFiles }: VmDisk, inodes: readonly string[], { source }: RunDisk): boolean {
  const now = named([file, ...backingFiles], inodes);
  const then = named([source.file, ...(source.below ?? [])], source.inodes ?? []);
  return now.some((image) => isOne(then[0], image)) || then.some((image) => isOne(now[0], image));
}

function isOne(a: NamedImage | undefined, b: NamedImage): boolean {
  if (a === undefined || a.file !== b.file) return false;
  return a.inode === '' || b.inode === '' || a.inode === b.inode;
}

interface NamedImage {
  readonly file: string;
  /** Empty if it is not known. */
  readonly inode: string;
}

function named(files: readonly string[], inodes: readonly string[]): NamedImage[] {
  return files.map((file, index) => ({ file, inode: inodes[index] ?? '' }));
}

interface NoBase {
  /** Undefined if it can be one. */
  readonly why?: string;
  /** Nothing is to be laid on what lies below it either. */
  readonly endsChain?: boolean;
}

async function whyNoBase(
  disk: VmDisk,
  since: Checkpoint,
  manifest: RunManifest,
  file: RunDisk,
  { folder, runs, maxChain, encrypt, signal }: BaseOptions,
): Promise<NoBase> {
  const key = encrypt === false ? undefined : encrypt;
  const unlike = whyNotAlike(file, manifest.run, key !== undefined);
  if (unlike !== undefined) return { why: unlike, endsChain: true };
  // An older run may have had the size of today.
  if (file.virtualSize !== disk.virtualSize) {
    return { why: `the disk was resized from ${file.virtualSize} to ${disk.virtualSize} bytes`, endsChain: true };
  }
  const resized = resizedSince(runs, manifest, file, disk.id);
  if (resized !== undefined) return { why: `the disk had another size in run ${resized.run}`, endsChain: true };
  if (since.why !== undefined) return { why: since.why };
  try {
    const chain = chainOf(folder, runs.all, manifest, file);
    if (chain.length >= maxChain) {
      return { why: `its chain has ${chain.length} files, at most ${maxChain} are wanted`, endsChain: true };
    }
    for (const link of chain) {
      const fault = await faultOf(folder, link.run);
      if (fault !== undefined) return { why: `run ${link.run} ${fault}`, endsChain: true };
      await checkLink(link, { signal, key });
    }
    return {};
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof BridgeError && error.code === 'E_KEY') {
      throw new UsageError('E_KEY', `${error.message}: a new chain begins with --full`, { cause: error });
    }
    if (error instanceof BridgeError) return { why: error.message };
    // A file that cannot be read (EIO, EACCES) is no base, and no reason to have no backup.
    if (error instanceof Error && 'code' in error) return { why: `a file of it cannot be read: ${error.message}` };
    throw error;
  }
}

const causes: Readonly<Record<CheckpointLife, string>> = {
  image: 'QEMU ended without storing them, or the image was put back or replaced',
  process: 'no image keeps them, and QEMU was started anew',
  none: '',
};

function whyNone({ id, serial }: VmDisk, wanted: readonly RunManifest[], life: CheckpointLife) {
  const known = wanted.some(({ disks }) => disks.some((each) => each.id === id || each.serial === serial));
  if (!known) return { why: 'the disk is in no earlier run' };
  const why =
    life === 'none'
      ? 'no checkpoint can be kept of it: its image is no qcow2 (version 3)'
      : `the VM has none of the checkpoints of earlier runs: ${causes[life]}, or those runs are too old`;
  return { why };
}
