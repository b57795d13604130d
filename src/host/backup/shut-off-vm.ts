// Opens a VM that is shut off for a backup: a QEMU without a machine stands in for it, with the VM's images as its drives
// and the VM's UUID, so that everything else is as with a VM that runs; bitmaps are read from the images and stored in
// them. Its disks are those of its definition if libvirt keeps one (defined-disks.ts), else those of its newest run in the
// repository, on the images that this host knows of the VM and by its snapshot sets. QEMU locks the images: a VM that
// is started meanwhile is refused by them.
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Deadline } from '../../deadline.js';
import { CutError, describeError, UnreachableError, UsageError } from '../../errors.js';
import type { QmpConnectOptions } from '../../qmp/client.js';
import { ownDataFiles } from '../images/data-files.js';
import { describeHolders, holdersOf } from '../images/image-file.js';
import { knownDisks, type KnowingHost, type KnownDisk } from '../repository/known-disks.js';
import { VmFolder } from '../repository/layout.js';
import { refuseStarted } from '../repository/lock-for-images.js';
import type { Repository } from '../repository/repository.js';
import { readRuns, wantedRuns } from '../repository/runs.js';
import { findAndLockVm, type LockRequest, type OpenVm } from '../sets/vm-lock.js';
import type { DefinedDisk } from '../vm/defined-vm.js';
import { definitionAt } from '../vm/definition.js';
import type { LeftOut } from '../vm/disk-choice.js';
import type { VmDescription } from '../vm/hypervisor.js';
import { identityKey, type VmIdentity } from '../vm/identity.js';
import { PlainQemu, type StandsIn } from '../vm/plain-qemu.js';
import { chooseDefined, type DefinedChoice } from './defined-disks.js';

export interface ShutOffVm extends OpenVm {
  /** Drives of the stand-in, and the disks that they are. */
  readonly drives: readonly StandInDrive[];
  /** Disks of it that are not among them; as in a DiskChoice. */
  readonly leftOut: readonly LeftOut[];
  readonly missing: readonly LeftOut[];
  /** What tells which images its disks are, for people. */
  readonly knownBy: string;
  /** The VM beside its disks. */
  readonly describe: () => Promise<VmDescription>;
}

interface StandInDrive {
  readonly device: string;
  /** As it was called when the VM ran. */
  readonly id: string;
  readonly serial: string | undefined;
}

const PROGRAM = 'qemu-system-x86_64';
/** `force-share`: it takes no lock that would keep the VM from being started. */
const READ_ONLY = 'read-only=on,force-share=on';
const START_LIMIT_MS = 30_000;
const END_LIMIT_MS = 60_000;

export interface ShutOffOptions {
  /** Ids, serials or files of the disks wanted; all of them if it is empty. */
  readonly named: readonly string[];
  readonly connect: QmpConnectOptions;
  /** `read`: nothing is to be changed. The images are not locked then, so that the VM may be started at any time. */
  readonly access: 'read' | 'write';
}

/**
 * Locks the VM and starts its stand-in, which ends when this is disposed. `whyShutOff`: what its monitor's opening threw.
 * Throws an UnreachableError if no run tells which disks it has, a UsageError if they are in use, or if it was started from a
 * backup on which it still lies.
 */
export async function openShutOffVm(
  request: LockRequest,
  repository: Repository | undefined,
  options: ShutOffOptions,
  whyShutOff: unknown,
): Promise<ShutOffVm> {
  const { named, connect } = options;
  const locked = await findAndLockVm(request, connect.timeoutMs ?? START_LIMIT_MS);
  const definition = definitionAt(request.vm.monitor);
  try {
    if (repository !== undefined) await refuseStarted(repository, identityKey(locked.identity));
    const host = { ...locked, stateDir: request.stateDir };
    const choice = await disksOf(repository, host, await definition.disks(), named, whyShutOff);
    const { disks, knownBy, leftOut, missing } = choice;
    const [claim] = await definition.savedState();
    if (claim !== undefined) throw new UsageError('E_IN_USE', `${claim.file}: ${claim.why}`);
    const standIn = await startStandIn(locked.identity, disks, options, request.vm.monitor.kind === 'libvirt');
    const close = async (): Promise<void> => {
      await standIn.end();
      await locked[Symbol.asyncDispose]();
    };
    const { hypervisor } = standIn;
    const drives = disks.map(({ id, serial }, index) => ({ device: driveName(id, index), id, serial }));
    const describe = (): Promise<VmDescription> => definition.describe();
    const known = { drives, knownBy, leftOut, missing };
    return { ...locked, ...known, hypervisor, describe, [Symbol.asyncDispose]: close };
  } catch (error) {
    await locked[Symbol.asyncDispose]();
    throw error;
  }
}

interface Choice extends DefinedChoice {
  readonly knownBy: string;
}

async function disksOf(
  repository: Repository | undefined,
  host: KnowingHost,
  defined: readonly DefinedDisk[] | undefined,
  named: readonly string[],
  whyShutOff: unknown,
): Promise<Choice> {
  const folder = repository === undefined ? undefined : new VmFolder(repository.path, identityKey(host.identity));
  const newest = folder === undefined ? undefined : wantedRuns(await readRuns(folder)).at(-1);
  if (newest === undefined) {
    const message = 'no run of the VM is here that would tell which disks it has while it is shut off';
    throw new UnreachableError('E_MONITOR', `${describeError(whyShutOff)}; ${message}`, { cause: whyShutOff });
  }
  if (defined !== undefined) return { ...chooseDefined(defined, named, newest), knownBy: 'its definition' };
  const all = await knownDisks(newest.run, newest.disks, host);
  return { disks: chooseDisks(all, named), leftOut: [], missing: [], knownBy: `run ${newest.run} and of its sets` };
}

function chooseDisks(disks: readonly KnownDisk[], named: readonly string[]): readonly KnownDisk[] {
  if (named.length === 0) return disks;
  return named.map((name) => {
    const disk = disks.find(({ id, serial, file }) => [id, serial, file].includes(name));
    if (disk !== undefined) return disk;
    const there = disks.map(({ id }) => id).join(', ');
    throw new UsageError(
      'E_DISK',
      `--disk ${JSON.stringify(name)}: expected one of the disks of the newest run (${there})`,
    );
  });
}

interface StandIn {
  readonly hypervisor: PlainQemu;
  /** It has closed the images when this returns. */
  end(): Promise<void>;
}

async function startStandIn(
  identity: VmIdentity,
  disks: readonly KnownDisk[],
  { connect, access }: ShutOffOptions,
  forLibvirt: boolean,
): Promise<StandIn> {
  for (const disk of disks) await refuseHeld(disk);
  const folder = await mkdtemp(join(tmpdir(), 'fsb-stand-in-'));
  const socket = join(folder, 'qmp.sock');
  const options: string[] = [];
  for (const [index, { id, file, format }] of disks.entries()) {
    const name = driveName(id, index);
    options.push(
      '-drive',
      `${await driveOption(name, file, format)},${access === 'read' ? READ_ONLY : 'discard=unmap'}`,
    );
  }
  const args = [
    ...['-M', 'none', '-nodefaults', '-display', 'none', '-S'],
    ...(identity.kind === 'uuid' ? ['-uuid', identity.uuid] : []),
    ...['-qmp', `unix:${socket},server=on,wait=off`],
    ...options,
  ];
  const { execa } = await import('execa');
  // It ends with us, however we end: as long as it has the images, the VM cannot be started.
  const words = ['--pdeathsig', 'TERM', PROGRAM, ...args];
  // Out of the reach of a terminal's Ctrl-C: we end it, when its images are as they should be.
  const child = execa('setpriv', words, { reject: false, stdin: 'ignore', detached: true });
  let hasEnded = false;
  const ended = child.then((result) => {
    hasEnded = true;
    return result;
  });
  try {
    const hypervisor = await connectTo(socket, connect, { forLibvirt, readOnly: access === 'read' }, () => hasEnded);
    const end = async (): Promise<void> => {
      await hypervisor.execute('quit').catch(() => undefined);
      await hypervisor[Symbol.asyncDispose]();
      const timer = setTimeout(() => child.kill('SIGKILL'), END_LIMIT_MS);
      await ended;
      clearTimeout(timer);
      await rm(folder, { recursive: true, force: true });
    };
    return { hypervisor, end };
  } catch (cause) {
    child.kill('SIGKILL');
    const { code, stderr } = await ended;
    await rm(folder, { recursive: true, force: true });
    throw whyNoStandIn(code, stderr.trim().split('\n').join('; '), cause);
  }
}

/** Throws a UsageError if a process has the disk's image open, or where its data is, or if that is not known. */
async function refuseHeld(disk: KnownDisk): Promise<void> {
  const { id, file } = disk;
  const data = await stat(file).then(
    () => ownDataFiles(disk),
    () => [],
  );
  for (const each of [file, ...data]) {
    const holders = await holdersOf(each);
    if (holders.length === 0) continue;
    const what = each === file ? 'the image' : 'the data file';
    throw new UsageError('E_IN_USE', `${each}, ${what} of disk ${id}, is in use by ${describeHolders(holders)}`);
  }
}

function whyNoStandIn(code: string | undefined, said: string, cause: unknown): Error {
  if (code === 'ENOENT' || said.startsWith('setpriv: ')) {
    const message = `a VM that is shut off is backed up by setpriv and ${PROGRAM}, which cannot be run: ${said}`;
    return new UsageError('E_BACKUP', message, { cause });
  }
  if (/Failed to get .*lock/.test(said)) return new UsageError('E_IN_USE', `an image is in use: ${said}`, { cause });
  return new CutError('E_BACKUP', `QEMU cannot open the images: ${said || describeError(cause)}`, { cause });
}

async function connectTo(
  socket: string,
  connect: QmpConnectOptions,
  standsIn: StandsIn,
  hasEnded: () => boolean,
): Promise<PlainQemu> {
  const deadline = new Deadline(START_LIMIT_MS);
  for (;;) {
    try {
      return await PlainQemu.connect(socket, connect, standsIn);
    } catch (error) {
      if (deadline.passed || hasEnded()) throw error;
      await sleep(50);
    }
  }
}

// `device[0]` is no name that a drive may have.
function driveName(id: string, index: number): string {
  const plain = id.replace(/[^A-Za-z0-9_.-]+/g, '-').replace(/^[^A-Za-z]+/, '');
  return plain === '' ? `disk${index}` : plain;
}

async function driveOption(id: string, file: string, format: KnownDisk['format']): Promise<string> {
  const name = file.replaceAll(',', ',,');
  const found = await stat(file).catch((cause: unknown) => {
    throw new UsageError('E_NO_IMAGE', `${file}, the image of disk ${id}, cannot be found`, { cause });
  });
  const driver = found.isBlockDevice() ? 'host_device' : 'file';
  return `if=none,id=${id},format=${format},file.driver=${driver},file.filename=${name}`;
}
