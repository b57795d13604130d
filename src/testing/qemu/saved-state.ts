// Saves and restores guests: a booted guest's memory and disks, from which a new one is running in a fraction of a second.
// Each restore gets fresh overlays over the saved disks, so a state serves any number of guests, at the same time too. A
// state fits one QEMU version, accelerator and command line (`E_STATE_MISMATCH` otherwise).
import { copyFile, chmod, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import * as v from 'valibot';
import { Deadline } from '../../deadline.js';
import { BridgeError, DeadlineError, isErrno, UnreachableError, UsageError } from '../../errors.js';
import { Reverter } from '../../reverter.js';
import { markUser, touch } from '../cache.js';
import { createOverlay, describeDisk, rebase } from '../disks.js';
import { guestDirectory, guestPaths, lastLines, removeFolder } from '../guest-folder.js';
import { GuestImage } from '../guest-image.js';
import { requirePrograms } from '../programs.js';
import { launch } from './launch.js';
import type { QemuGuest } from './qemu-guest.js';
import { qemuVersion } from './qemu-version.js';

const Disk = v.strictObject({
  name: v.string(),
  file: v.string(),
  /** Virtual size in bytes. */
  size: v.number(),
  ground: v.strictObject({ file: v.string(), format: v.picklist(['qcow2', 'raw']) }),
});
const Saved = v.strictObject({
  qemu: v.string(),
  image: GuestImage,
  memoryMiB: v.number(),
  cpus: v.number(),
  accelerator: v.picklist(['kvm', 'tcg']),
  /** Files are in the state's folder. */
  disks: v.array(Disk),
});
type Saved = v.InferOutput<typeof Saved>;

const MigrationStatus = v.looseObject({
  status: v.optional(v.string()),
  'error-desc': v.optional(v.string()),
});

const MEMORY = 'memory';
const DESCRIPTION = 'state.json';
/** Faster than any disk or pipe: the default of 128 MiB/s would be the longest part of a save. */
const NO_BANDWIDTH_LIMIT = 20 * 2 ** 30;

/**
 * Saves a guest into `directory` (made if need be) and ends it: its disks become the state's. Throws UsageError if
 * hot-plugged disks were not unplugged before. Disks that were cut since the start must have been committed. The caller
 * still disposes `guest`.
 */
export async function saveState(guest: QemuGuest, directory: string): Promise<void> {
  const { machine, monitor } = guest;
  const extra = guest.disks.filter((disk) => !machine.disks.includes(disk));
  if (extra.length > 0) {
    throw new UsageError('E_SAVE_HOTPLUGGED', `unplug before saving: ${extra.map(({ node }) => node).join(', ')}`);
  }
  await mkdir(directory, { recursive: true });
  guest.stockAgent.close();
  await guest.pause();
  await monitor.execute('migrate-set-parameters', { 'max-bandwidth': NO_BANDWIDTH_LIMIT });
  await monitor.execute('migrate', { uri: `exec:cat >${quoted(path.join(directory, MEMORY))}` });
  await waitForMigration(guest, 60_000);
  await guest.kill(); // nothing is lost: the migration has flushed the disks and given them up

  const disks: Saved['disks'] = [];
  for (const { node, file, size, ground } of machine.disks) {
    if (ground === undefined) throw new UsageError('E_SAVE_GROUND', `disk ${node} is no overlay: it cannot be saved`);
    const kept = path.join(directory, `${node}.qcow2`);
    await moveInto(file, kept);
    // One layer over the image, however many states lie between: each state can be deleted without the others.
    await rebase(kept, ground);
    await chmod(kept, 0o444);
    disks.push({ name: node, file: path.basename(kept), size, ground });
  }
  const saved: Saved = {
    qemu: await qemuVersion(),
    image: guest.image,
    memoryMiB: machine.memoryMiB,
    cpus: machine.cpus,
    accelerator: machine.accelerator,
    disks,
  };
  await writeFile(path.join(directory, DESCRIPTION), `${JSON.stringify(saved, undefined, 2)}\n`);
}

/**
 * Starts a guest where the saved one stood, with its clock set to now. Throws BridgeError `E_STATE_MISMATCH` when QEMU
 * is another one or refuses the state.
 */
export async function restoreGuest(directory: string): Promise<QemuGuest> {
  requirePrograms('qemu');
  const saved = v.parse(Saved, JSON.parse(await readFile(path.join(directory, DESCRIPTION), 'utf8')));
  const version = await qemuVersion();
  if (version !== saved.qemu) {
    throw new BridgeError('E_STATE_MISMATCH', `${directory}: saved by ${saved.qemu}, this is ${version}`);
  }
  const dir = await guestDirectory();
  try {
    const disks = saved.disks.map(async ({ name, file, size, ground }) => {
      const base = { file: path.join(directory, file), format: 'qcow2' } as const;
      const overlay = await createOverlay(path.join(dir, `${name}.qcow2`), base);
      return { ...(await describeDisk(name, overlay, { size })), ground };
    });
    const { image, memoryMiB, cpus, accelerator } = saved;
    const { kernel, initrd, ports } = image;
    const machine = { kernel, initrd, ports, memoryMiB, cpus, accelerator, disks: await Promise.all(disks) };
    const atEnd = new Reverter();
    const guest = await launch({ image, machine, dir, incoming: true, atEnd });
    try {
      await touch(directory);
      await touch(image.directory);
      atEnd.push('mark on the state', await markUser(directory, guest.pid));
      await load(guest, path.join(directory, MEMORY));
      await guest.resume();
      await guest.setClock();
    } catch (cause) {
      await guest.kill();
      throw cause;
    }
    return guest;
  } catch (cause) {
    await removeFolder(dir);
    throw cause;
  }
}

async function load(guest: QemuGuest, memory: string): Promise<void> {
  const deadline = new Deadline(60_000);
  try {
    await guest.monitor.execute('migrate-incoming', { uri: `exec:cat ${quoted(memory)}` });
    while ((await guest.runState()) === 'inmigrate') {
      if (deadline.passed) throw new DeadlineError(`load of ${memory}`, deadline.limitMs);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  } catch (cause) {
    // A state that does not fit ends QEMU; only its log says why.
    if (!(cause instanceof UnreachableError)) throw cause;
    const why = await lastLines(guestPaths(guest.dir).logPath);
    throw new BridgeError('E_STATE_MISMATCH', `${memory}: QEMU refuses this state: ${why}`, { cause });
  }
}

async function waitForMigration(guest: QemuGuest, timeoutMs: number): Promise<void> {
  const deadline = new Deadline(timeoutMs);
  for (;;) {
    const migration = v.parse(MigrationStatus, await guest.monitor.execute('query-migrate'));
    if (migration.status === 'completed') return;
    if (migration.status === 'failed' || migration.status === 'cancelled') {
      throw new UnreachableError(
        'E_SAVE',
        `QEMU could not save the guest: ${migration['error-desc'] ?? migration.status}`,
      );
    }
    if (deadline.passed) throw new DeadlineError('save of the guest', timeoutMs);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function moveInto(from: string, to: string): Promise<void> {
  await rename(from, to).catch(async (error: unknown) => {
    if (!isErrno(error, 'EXDEV')) throw error;
    await copyFile(from, to);
  });
}

function quoted(file: string): string {
  return `'${file.replaceAll("'", `'\\''`)}'`;
}
