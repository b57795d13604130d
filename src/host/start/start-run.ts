// `backup restore --start`: a VM runs at once on images that lie on the files of a run, and what lies below is copied into
// them while it runs. QEMU outlives this process; so does the lock by which the repository knows that it is read. Until the
// guest is let run, whatever fails leaves nothing; from then on nothing of it is taken away.
import { rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { ConsistencyLevel } from '../../consistency.js';
import { interruption, throwIfInterrupted } from '../../confirm.js';
import { defined } from '../../defined.js';
import { CutError, describeError, QuiesceError, type BridgeError } from '../../errors.js';
import { runQmp } from '../../qmp/commands.js';
import type { TransferProgress } from '../../qmp/transfer-progress.js';
import { Reverter } from '../../reverter.js';
import type { MachineChoice } from '../boot/boot-options.js';
import { hasAgent, hasKvm, KVM_STALL_MS } from '../boot/boot-run.js';
import type { Accelerator } from '../boot/guest-arguments.js';
import { isRefusedStart, startGuest, type GuestProcess } from '../boot/guest-process.js';
import { machineOfRun } from '../boot/machine-of-run.js';
import { withData } from '../images/overlay-data.js';
import { chainOf, checkLink } from '../repository/chain.js';
import { findToRead } from '../repository/find-to-read.js';
import type { HeldLock } from '../repository/held-lock.js';
import { IMAGES_LAST_MS, lockForImages } from '../repository/lock-for-images.js';
import { openRepository, type Repository } from '../repository/repository.js';
import { checkNewFolder } from '../restore/new-folder.js';
import { chooseRunDisks } from '../restore/run-disks.js';
import { takeLock, type OwnerLock } from '../sets/owner-lock.js';
import { ownerOf } from '../sets/owner.js';
import { bytesToCopy, checkFiles, checkRoomFor, refuseEncrypted } from './check-start.js';
import { comesUp } from './comes-up.js';
import { noteStarted, refuseRunning, type KnownAs } from './known-start.js';
import { prepareFolder, waiting, type Preparation, type Prepared } from './prepare-folder.js';
import { checkSocketNames, StartFolder } from './start-folder.js';
import { removeRecord, writeRecord } from './start-record.js';
import { streamImages } from './stream-images.js';

export interface StartOptions extends MachineChoice, KnownAs {
  readonly repository: string;
  readonly run: string;
  readonly vm: string | undefined;
  /** Absolute; must not be there, its folder must. */
  readonly target: string;
  /** Ids or serials of disks; all of them if it is empty. */
  readonly disks: readonly string[];
  /** Sum what is read first; undefined: only see that no damage is known. */
  readonly verify: boolean | undefined;
  /** From the guest's start until its agent answers, before its disks are copied all the same. */
  readonly bootLimitMs: number;
  /** Bytes per second, all disks together. */
  readonly speed: number | undefined;
  /** For everything. */
  readonly limitMs: number;
  /** What to type if the copying ends before its time. */
  readonly goOn: string;
  /** The guest runs. */
  readonly onStarted: (vm: RunningVm) => void;
  readonly onTransfer: (progress: TransferProgress) => void;
}

export interface RunningVm {
  readonly vm: string;
  readonly run: string;
  readonly accelerator: Accelerator;
  readonly pid: number;
  /** Sockets: QEMU's monitor, the guest's agent, the serial console. */
  readonly qmp: string;
  readonly agent: string;
  readonly console: string;
  /** From the call until the guest ran. */
  readonly startMs: number;
}

export interface StartedVm extends RunningVm {
  readonly createdAt: string;
  readonly level: ConsistencyLevel;
  readonly target: string;
  /** From the guest's start until its agent answered. */
  readonly agentMs?: number;
  /** From then on until its images were whole. */
  readonly streamMs: number;
  readonly disks: readonly {
    readonly id: string;
    readonly serial?: string;
    readonly file: string;
    readonly format: 'qcow2';
    readonly virtualSize: number;
    readonly level: ConsistencyLevel;
  }[];
  readonly notes: readonly string[];
}

interface Start extends Preparation {
  readonly options: StartOptions;
  readonly store: Repository;
  readonly folder: StartFolder;
  readonly startMs: number;
}

/**
 * Throws a UsageError for a run, disk or folder that cannot be used, or if QEMU refuses; a CutError if a file of the run is not
 * what it was (`E_CHAIN`, `E_VERIFY`), there is no room (`E_NO_SPACE`) or the guest does not come up (`E_BOOT`): nothing is left then. A QuiesceError when
 * interrupted, and a CutError `E_STREAM`, say whether the VM runs on.
 */
export async function startRun(options: StartOptions): Promise<StartedVm> {
  const startMs = performance.now();
  const { target, accelerator } = options;
  const folder = new StartFolder(target);
  const store = await openRepository(options.repository);
  const reading = { operation: 'backup restore --start', onWarning: options.onWarning };
  await using found = await findToRead(store, options.run, options.vm, reading);
  const { manifest, runs, vm, lock } = found;
  const disks = chooseRunDisks(manifest, options.disks);
  await checkNewFolder(target);
  checkSocketNames(folder);
  refuseEncrypted(found, disks);
  await refuseRunning({ name: vm.name, uuid: manifest.vm.uuid }, folder, options);
  await checkFiles(found, disks, options);
  await checkRoomFor(target, await bytesToCopy(found, disks, options));
  const facts = await machineOfRun(vm.folder, runs.all, manifest, options);
  await lock.check();
  const start: Start = {
    ...{ options, store, folder, startMs, found, disks, facts },
    ...{ repository: store.path, choice: options, speed: options.speed, signal: options.signal },
  };
  if (accelerator !== 'auto') return await startOn(accelerator, start);
  if (!(await hasKvm(facts))) return await startOn('tcg', start);
  try {
    return await startOn('kvm', start);
  } catch (error) {
    if (!isRefusedStart(error) && !(error instanceof DidNotComeUp && error.left.length === 0)) throw error;
    options.onWarning(`under KVM it failed (${describeError(error)}): it is started again by emulation`);
    return await startOn('tcg', start);
  }
}

class DidNotComeUp extends CutError {
  /** Images that hold what the guest wrote. */
  readonly left: readonly string[];

  constructor(message: string, left: readonly string[]) {
    super('E_BOOT', message);
    this.left = left;
  }
}

async function startOn(accelerator: Accelerator, start: Start): Promise<StartedVm> {
  const { options, store, folder, found, disks } = start;
  const images = disks.map(({ file }) => join(folder.path, basename(file.name)));
  await using lock = await lockForImages(store, found.vm.folder.key, { operation: 'backup restore --start', images });
  const undo = new Reverter();
  let own: OwnerLock;
  let guest: GuestProcess;
  let prepared: Prepared;
  try {
    prepared = await prepareFolder(folder, accelerator, start);
    undo.push(`remove ${folder.path}`, () => rm(folder.path, { recursive: true, force: true }));
    own = await takeLock(folder.lock, { operation: 'restore' }, { what: folder.path, waitMs: 0 });
    undo.push('let go', async () => {
      await own[Symbol.asyncDispose]();
    });
    throwIfInterrupted(options.signal, 'nothing was started, and nothing of it is left');
    const [program, words] = waiting(prepared.record);
    guest = await startGuest(program, words, folder.control, { log: folder.log });
    undo.push('end QEMU', async () => {
      await guest[Symbol.asyncDispose]();
    });
    // QEMU has them open now; until they were, they may have been removed.
    await checkStillThere(start);
    await writeRecord(folder, { ...prepared.record, begun: new Date().toISOString() });
    await lock.handOver(await ownerOf(guest.pid), IMAGES_LAST_MS);
    await runQmp(guest.monitor, 'cont', {});
  } catch (error) {
    await undo.revert();
    throwIfInterrupted(options.signal, 'nothing was started, and nothing of it is left');
    throw error;
  }
  return await goOn({ ...start, accelerator, guest, prepared, lock, own, undo });
}

async function checkStillThere({ found: { vm, runs, manifest }, disks, signal }: Start): Promise<void> {
  const reading = { signal, key: undefined };
  for (const disk of disks)
    for (const link of chainOf(vm.folder, runs.all, manifest, disk)) await checkLink(link, reading);
}

interface Running extends Start {
  readonly accelerator: Accelerator;
  readonly guest: GuestProcess;
  readonly prepared: Prepared;
  readonly lock: HeldLock;
  readonly own: OwnerLock;
  /** Takes everything away. */
  readonly undo: Reverter;
}

/** The guest runs. */
async function goOn(running: Running): Promise<StartedVm> {
  const { options, folder, found, disks, accelerator, guest, prepared, lock, own, undo, startMs } = running;
  const { manifest, vm } = found;
  const begunMs = performance.now();
  const told: RunningVm = {
    ...{ vm: vm.name, run: manifest.run, accelerator, pid: guest.pid },
    ...{ qmp: folder.qmp, agent: folder.agent, console: folder.console, startMs: Math.round(begunMs - startMs) },
  };
  try {
    options.onStarted(told);
    for (const note of prepared.notes) options.onWarning(note);
    await noteStarted({ name: vm.name, uuid: manifest.vm.uuid }, folder, guest.monitor, undo, options).catch(
      (error: unknown) => {
        options.onWarning(`this host does not know on which images VM ${vm.name} is: ${describeError(error)}`);
      },
    );
    const up = await awaitUp(running);
    for (const note of up.notes) options.onWarning(note);
    const streamStartMs = performance.now();
    await streamImages(guest.monitor, prepared.record.disks, options);
    const { status } = await runQmp(guest.monitor, 'query-status', {});
    // A full filesystem, for instance, stops the guest and not the copying.
    const stands =
      status === 'running' ? [] : [`its guest stands still (${status}): look at ${folder.path}, then "cont"`];
    for (const note of stands) options.onWarning(note);
    await lock.check();
    await removeRecord(folder);
    const { createdAt, level } = manifest;
    return {
      ...{ ...told, createdAt, level, target: folder.path, ...defined({ agentMs: up.agentMs }) },
      streamMs: Math.round(performance.now() - streamStartMs),
      disks: disks.map(({ id, serial, file, virtualSize, level: worth }) => {
        const image = join(folder.path, file.name);
        return { id, ...defined({ serial }), file: image, format: 'qcow2', virtualSize, level: worth };
      }),
      notes: [...prepared.notes, ...up.notes, ...stands],
    };
  } catch (error) {
    if (error instanceof DidNotComeUp && error.left.length === 0) {
      await undo.revert();
      throw error;
    }
    lock.leave();
    throw await leftAt(running, error);
  } finally {
    undo.keep();
    guest.letGo();
    await own[Symbol.asyncDispose]();
  }
}

async function awaitUp({ options, folder, found, accelerator, guest, prepared }: Running) {
  const { manifest, runs } = found;
  const up = await comesUp(guest, {
    ...{ limitMs: options.bootLimitMs, signal: options.signal, onProgress: options.onProgress },
    agentSocket: hasAgent(manifest, runs.all) ? folder.agent : undefined,
    stallMs: accelerator === 'kvm' && options.accelerator === 'auto' ? KVM_STALL_MS : undefined,
  });
  if (!('why' in up)) return up;
  const left = await withData(prepared.record.disks.map(({ file }) => file));
  throw new DidNotComeUp(`run ${manifest.run} was not started: ${up.why}`, left);
}

async function leftAt(
  { options: { signal, goOn: command }, folder, guest }: Running,
  cause: unknown,
): Promise<BridgeError> {
  const facts = { target: folder.path, pid: guest.pid, qmp: folder.qmp, agent: folder.agent };
  const images = 'its images still lie on the repository';
  const end = await endOf(guest);
  if (end !== undefined) {
    const message = `the VM has ended (${end}), and ${images}: ${folder.path} holds what it wrote; to go on: ${command}`;
    return new CutError('E_STREAM', message, { cause, facts });
  }
  const runs = `the VM runs on (process ${guest.pid}), and ${images}; to have its disks copied to the end: ${command}`;
  if (signal.aborted) return new QuiesceError('E_INTERRUPTED', interruption(signal, runs), { cause, facts });
  return new CutError('E_STREAM', runs, { cause, facts });
}

/** By what QEMU ended; undefined if it runs. */
async function endOf(guest: GuestProcess): Promise<string | undefined> {
  // Its monitor is gone a moment before the process.
  if (guest.monitor.connected && !guest.hasEnded()) return undefined;
  try {
    return await guest.ending();
  } catch (error) {
    return describeError(error);
  }
}
