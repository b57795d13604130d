// Starts a user-mode kernel for a guest, with its process namespace, its serial lines and its disks where they are.
import { readFile, statfs } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Deadline } from '../../deadline.js';
import { UnreachableError, UsageError } from '../../errors.js';
import { Reverter } from '../../reverter.js';
import { markUser } from '../cache.js';
import type { DiskFile } from '../disks.js';
import { guestPaths, type GuestPaths } from '../guest-folder.js';
import type { GuestImage } from '../guest-image.js';
import { startMachine, type MachineProcess } from '../machine-process.js';
import { serveLine } from './channel-socket.js';
import type { UserModeKernel } from './kernel.js';
import { quietProcessor } from './processor.js';
import { describeUbd, UserModeGuest } from './user-mode-guest.js';

const START_LIMIT_MS = 10_000;

export interface UserModeLaunch {
  readonly image: GuestImage;
  readonly kernel: UserModeKernel;
  /** Raw files, written by the guest. The first one is the root disk. */
  readonly disks: readonly (Pick<DiskFile, 'file'> & { readonly name: string })[];
  readonly memoryMiB: number;
  readonly dir: string;
}

/**
 * Starts the kernel, and does not wait for the guest. Throws UnreachableError with the kernel's output when it ends at
 * once, UsageError `E_NAMESPACE` when this user may not make the namespace that it runs in.
 */
export async function launchUserMode({
  image,
  kernel,
  disks: files,
  memoryMiB,
  dir,
}: UserModeLaunch): Promise<UserModeGuest> {
  const paths = guestPaths(dir);
  const disks = await Promise.all(files.map(async ({ name, file }, index) => await describeUbd(name, file, index)));
  const started = await startMachine(
    [...(await ownProcessor()), ...namespace(), kernel.program, ...kernelArguments(kernel, disks, memoryMiB, paths)],
    paths.consolePath,
    { openStdin: true, lines: 2, env: await memoryFolder(memoryMiB, dir) },
  );
  const atEnd = new Reverter();
  try {
    const { init, pid } = await findKernel(started, kernel.program);
    const kill = async (): Promise<void> => {
      if (!started.hasEnded()) process.kill(init, 'SIGKILL');
      await started.ended;
    };
    const sockets = [paths.qgaPath, paths.execPath];
    for (const [index, line] of started.lines.entries()) {
      const socket = sockets[index] ?? '';
      const served = await serveLine(line, socket);
      atEnd.push(`socket ${socket}`, async () => {
        await served[Symbol.asyncDispose]();
      });
    }
    for (const directory of [image.directory, kernel.directory]) {
      atEnd.push(`mark on ${directory}`, await markUser(directory, pid));
    }
    return new UserModeGuest({
      image,
      kernel: kernel.version,
      paths,
      disks,
      process: { ...started, pid, kill },
      atEnd,
    });
  } catch (cause) {
    await started.kill();
    await atEnd.revert();
    throw cause;
  }
}

async function ownProcessor(): Promise<string[]> {
  const processor = await quietProcessor();
  return processor === undefined ? [] : ['taskset', '--cpu-list', String(processor)];
}

/**
 * Processes of the guest are processes of the host, and outlive a kernel that is killed: so it gets a process namespace,
 * which ends as a whole with its init, and that when we die.
 */
function namespace(): string[] {
  const asUser = process.getuid?.() === 0 ? [] : ['--user', '--map-current-user'];
  const init = ['sh', '-c', '"$@"; exit $?', 'sh'];
  return ['unshare', ...asUser, '--pid', '--fork', '--kill-child=KILL', '--', ...init];
}

function kernelArguments(
  kernel: UserModeKernel,
  disks: readonly { readonly device: string; readonly file: string }[],
  memoryMiB: number,
  { managementPath }: GuestPaths,
): string[] {
  const umid = path.dirname(managementPath);
  return [
    `mem=${memoryMiB}M`,
    ...[`umid=${path.basename(umid)}`, `uml_dir=${path.dirname(umid)}/`],
    ...disks.map(({ device, file }) => `${device}=${file}`),
    ...[`initrd=${kernel.initrd}`, 'root=/dev/ubda', 'ro'],
    ...['con=null', 'con0=fd:0,fd:1', 'console=tty0', 'ssl=null', 'ssl1=fd:3', 'ssl2=fd:4'],
    ...['quiet', 'systemd.show_status=false', 'selinux=0', 'fsck.mode=skip', 'panic=1'],
  ];
}

/** The guest's memory is a file, best in memory: /dev/shm if it is large enough (in containers it often is not). */
async function memoryFolder(memoryMiB: number, dir: string): Promise<Record<string, string>> {
  const freeMiB = await statfs('/dev/shm').then(
    ({ bavail, bsize }) => (bavail * bsize) / 2 ** 20,
    () => 0,
  );
  return { TMPDIR: freeMiB > memoryMiB ? '/dev/shm' : dir };
}

/** The kernel is the only child of the namespace's init, which is the only child of what was started. */
async function findKernel(
  started: MachineProcess,
  program: string,
): Promise<{ readonly init: number; readonly pid: number }> {
  const deadline = new Deadline(START_LIMIT_MS);
  while (!deadline.passed && !started.hasEnded()) {
    for (const init of await childrenOf(started.pid)) {
      for (const pid of await childrenOf(init)) {
        const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
        if (command.startsWith(program)) return { init, pid };
      }
    }
    await sleep(2);
  }
  const output = (await started.output()).trim();
  if (output.startsWith('unshare: ')) {
    throw new UsageError(
      'E_NAMESPACE',
      `a user-mode guest needs a process namespace, which this user may not make: ${output}. Root needs CAP_SYS_ADMIN ` +
        'for it (in a container, too), others user namespaces (sysctl user.max_user_namespaces, ' +
        'kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)',
    );
  }
  throw new UnreachableError('E_KERNEL_ENDED', `${program} did not start: ${output}`);
}

async function childrenOf(pid: number): Promise<readonly number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => '');
  return text.split(' ').filter(Boolean).map(Number);
}
