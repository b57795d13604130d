// Sees to VMs that were started from runs of a repository, and whose images were not made whole by the tool that started
// them: it was killed or interrupted, or QEMU ended. The locks of such images tell where they are. What a guest has written to
// is never removed.
import { rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { throwIfInterrupted } from '../../confirm.js';
import { BridgeError, describeError, UnreachableError } from '../../errors.js';
import { QmpClient } from '../../qmp/client.js';
import { runQmp } from '../../qmp/commands.js';
import type { TransferProgress } from '../../qmp/transfer-progress.js';
import { shellWord } from '../../shell-word.js';
import { openToOthers } from '../boot/host-files.js';
import { exists } from '../images/durable-file.js';
import { describeHolders, holdersOfEach } from '../images/image-file.js';
import { storedVms } from '../repository/find-run.js';
import type { HouseOptions, RepositoryFinding } from '../repository/keep-house.js';
import { withData } from '../images/overlay-data.js';
import { isFree } from '../repository/lock-file.js';
import { heldAgain, imagesLocks, type ImagesLock } from '../repository/lock-for-images.js';
import { openRepository } from '../repository/repository.js';
import { takeLock } from '../sets/owner-lock.js';
import { ownerState } from '../sets/owner.js';
import { StartFolder } from './start-folder.js';
import { readRecord, removeRecord, type StartRecord } from './start-record.js';
import { streamImages } from './stream-images.js';

export interface RecoverStartedOptions extends HouseOptions {
  readonly dryRun: boolean;
  /** For the copying, of each VM. */
  readonly limitMs: number;
  readonly onTransfer: (progress: TransferProgress) => void;
}

type Found = Omit<RepositoryFinding, 'vm'>;

const PREPARING = 'prelaunch';

/** Throws a UsageError, and a QuiesceError when interrupted: the VMs run on. */
export async function recoverStarted(options: RecoverStartedOptions): Promise<readonly RepositoryFinding[]> {
  const repository = await openRepository(options.repository);
  const findings: RepositoryFinding[] = [];
  for (const { folder, name: vm } of await storedVms(repository, options.vm)) {
    for (const there of await imagesLocks(repository, folder.key)) {
      throwIfInterrupted(options.signal, 'recover goes on when it is called again');
      findings.push({ vm, ...(await recoverOne(there, options)) });
    }
  }
  return findings;
}

async function recoverOne(there: ImagesLock, options: RecoverStartedOptions): Promise<Found> {
  const folder = new StartFolder(dirname(there.lock.images[0] ?? ''));
  const { path } = folder;
  try {
    // Whoever may write to the repository may name any folder in it.
    const open = (await exists(path)) ? await openToOthers([path]) : undefined;
    if (open !== undefined) {
      const found = `a lock in the repository says that images in ${path} lie on its runs`;
      return { status: 'yours', found, did: `what is in it is not believed: ${open}` };
    }
    const record = await readRecord(folder);
    const free = await Promise.all(there.lock.images.map(isFree));
    const owner = await ownerState(there.lock.owner);
    if (free.every((each) => each === undefined)) return noImages(there, path, owner !== 'gone');
    if (record?.begun === undefined && owner !== 'gone') {
      return busy(`a VM is being started in ${path} by process ${there.lock.owner.pid}`);
    }
    if (free.every((each) => each === true)) return await letGo(there, folder, options);
    if (record === undefined) {
      const did = `do not remove it, nor the run; make its images whole: ${FLATTEN}`;
      const commands = flattening(there.lock.images);
      return {
        status: 'yours',
        found: `images in ${path} lie on a run, and no record says of which start`,
        did,
        commands,
      };
    }
    if (record.begun === undefined) return await neverRan(there, folder, record, options);
    const lock = { what: `the VM in ${path}`, waitMs: options.lockWaitMs, signal: options.signal };
    const own = await takeLock(folder.lock, { operation: 'recover' }, lock);
    try {
      return await goOn(there, folder, record, options);
    } finally {
      await own[Symbol.asyncDispose]();
    }
  } catch (error) {
    throwIfInterrupted(options.signal, 'a VM that runs runs on; recover goes on when it is called again');
    if (error instanceof BridgeError && error.code === 'E_VM_BUSY') return busy(error.message);
    const found = `a VM that was started in ${path} still needs the repository`;
    return { status: 'yours', found, did: `recover again; what came between: ${describeError(error)}` };
  }
}

const FLATTEN = 'type the command for each of them while nothing has it open, and recover again';

function flattening(images: readonly string[]): string[] {
  return images.map((file) => `qemu-img rebase -p -f qcow2 -b '' ${shellWord(file)}`);
}

function busy(found: string): Found {
  return { status: 'busy', found, did: 'left alone' };
}

/** Lets go of a lock that nobody needs. */
async function release(there: ImagesLock): Promise<void> {
  await heldAgain(there)[Symbol.asyncDispose]();
}

/** They may lie on a filesystem that is not mounted. */
function noImages({ file, lock }: ImagesLock, path: string, lives: boolean): Found {
  if (lives) {
    return busy(`process ${lock.owner.pid} starts a VM in ${path}, or runs one whose images were removed from there`);
  }
  const found = `a VM was started in ${path}, and its images are not there`;
  const did = `if they are elsewhere, or on a filesystem that is not mounted, bring them back and recover again; until ${lock.expires} the run is kept. If they are gone for good, type the command`;
  return { status: 'yours', found, did, commands: [`rm ${shellWord(file)}`] };
}

function told(dryRun: boolean, found: string, did: string): Found {
  return { status: dryRun ? 'planned' : 'done', found, did };
}

async function letGo(there: ImagesLock, folder: StartFolder, { dryRun }: RecoverStartedOptions): Promise<Found> {
  if (!dryRun) {
    await removeRecord(folder);
    await release(there);
  }
  return told(dryRun, `the images in ${folder.path} are whole`, 'let go of the run');
}

/** Nothing was written to it. */
async function neverRan(
  there: ImagesLock,
  { path, control }: StartFolder,
  { disks }: StartRecord,
  { dryRun }: RecoverStartedOptions,
): Promise<Found> {
  const found = `a VM was to be started in ${path}, and never ran`;
  if (dryRun) return told(dryRun, found, 'remove the folder');
  const images = disks.map(({ file }) => file);
  const isOurs = images.every((file) => dirname(file) === path && there.lock.images.includes(file));
  await using monitor = await monitorOf(control);
  const status = monitor === undefined ? PREPARING : (await runQmp(monitor, 'query-status', {})).status;
  if (!isOurs || status !== PREPARING || (await withData(images)).length > 0) {
    return { status: 'yours', found, did: `left alone: it is not as it was prepared (${status}); look at it` };
  }
  await monitor?.execute('quit');
  const holders = (await holdersOfEach(images)).flat().filter(({ pid }) => pid !== undefined);
  if (monitor === undefined && holders.length > 0) {
    return {
      status: 'yours',
      found,
      did: `${describeHolders(holders)} has its images open: end that, and recover again`,
    };
  }
  await rm(path, { recursive: true, force: true });
  await release(there);
  return told(false, found, 'remove the folder');
}

/** Undefined if no QEMU is there. Throws an UnreachableError if one may be. */
async function monitorOf(control: string): Promise<QmpClient | undefined> {
  try {
    return await QmpClient.connect(control);
  } catch (error) {
    if (error instanceof UnreachableError && error.code === 'E_MONITOR') return undefined;
    throw error;
  }
}

async function goOn(
  there: ImagesLock,
  folder: StartFolder,
  record: StartRecord,
  options: RecoverStartedOptions,
): Promise<Found> {
  const { path, control } = folder;
  const { disks, speed, run } = record;
  await using monitor = await monitorOf(control);
  if (monitor === undefined) return await ended(folder, record);
  const found = `a VM that was started from run ${run} runs in ${path}, and its images still lie on the repository`;
  const did = 'copy its disks to the end';
  if (options.dryRun) return told(true, found, did);
  await using lock = heldAgain(there);
  try {
    const { status } = await runQmp(monitor, 'query-status', {});
    // It was killed before the guest was let run, or the guest was stopped by what was full or failed then.
    if (status === PREPARING || status === 'io-error') await runQmp(monitor, 'cont', {});
    await streamImages(monitor, disks, { ...options, speed });
    await removeRecord(folder);
  } catch (error) {
    lock.leave();
    throw error;
  }
  return told(false, found, did);
}

/** QEMU is gone, and only a person can say what is to become of what its guest wrote. */
async function ended({ path }: StartFolder, { run, command, disks }: StartRecord): Promise<Found> {
  const images = disks.map(({ file }) => file);
  const found = `a VM that was started from run ${run} in ${path} has ended, and its images still lie on the repository`;
  const holders = (await holdersOfEach(images)).flat();
  if (holders.length > 0) {
    const did = `${describeHolders(holders)} has them open: when it has ended, make them whole: ${FLATTEN}`;
    return { status: 'yours', found, did, commands: flattening(images) };
  }
  const start = command.map(shellWord).join(' ');
  const did = `do not remove the folder, it holds what the guest wrote. Start it again by the first command, and recover; or make its images whole: ${FLATTEN}`;
  return { status: 'yours', found, did, commands: [start, ...flattening(images)] };
}
