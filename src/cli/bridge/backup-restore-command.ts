// `fsfreeze-bridge backup restore`: makes the disks of a run in a folder, or writes them back onto the VM's images.
import type { Argv } from 'yargs';
import { defined } from '../../defined.js';
import { UsageError } from '../../errors.js';
import { restoreInPlace } from '../../host/restore/restore-in-place.js';
import { restoreFormats, restoreRun } from '../../host/restore/restore-run.js';
import { startRun } from '../../host/start/start-run.js';
import { shellWord } from '../../shell-word.js';
import { keyOf, withKey, type KeyArgs } from './backup-key.js';
import { dryRun, runName, timeout, withRepo } from './backup-options.js';
import { confirmWith } from '../../confirm-prompt.js';
import { exitCode, type ExitCode } from './exit-codes.js';
import { bootTimeout, givenOfMachine, machineChoice, withMachine, type MachineArgs } from './machine-options.js';
import {
  bytesPerSecond,
  limitMs,
  lockRequest,
  lockTimeout,
  lockWaitMs,
  monitorTimeout,
  path,
  vmOf,
  withVm,
  yes,
  type LockArgs,
  type VmArgs,
} from './options.js';
import type { Output } from './output.js';
import { renderInPlace, renderRestored, renderRunning, renderStarted } from './render-backup.js';
import type { Result } from './results/results.js';

interface RestoreArgs extends VmArgs, LockArgs, MachineArgs, KeyArgs {
  repo: string;
  run: string;
  dir: string | undefined;
  'in-place': boolean;
  start: boolean;
  limit: number | undefined;
  'dry-run': boolean;
  yes: boolean;
  format: (typeof restoreFormats)[number];
  disk: string[];
  image: string[];
  verify: boolean | undefined;
  timeout: number;
  'boot-timeout': number;
  'monitor-timeout': number;
}

const START = 'Start:';

const EPILOGUE = [
  'The folder has its name once everything in it is whole, compared and on the disk. No image of a VM is touched. ' +
    'Without this program: "backup show" and each manifest.json have the command line for qemu-img.',
  'With --in-place the images of the VM, which must be shut off, become what they were at the run. What differs is found ' +
    'first, then you are asked, and only that is written. Images that anybody needs as they are (a VM, a snapshot set, ' +
    'another image that lies on them) are refused. Which images those are this host knows from the last backup of the running ' +
    'VM and from its snapshot sets; if the run is of another disk than that, it is refused, unless you name the image by ' +
    '--image. If it is killed while it writes, call it again: it goes on; until then ' +
    'the VM must not be started. The next backup of a qcow2 image is an increment.',
  'With --start a VM runs from the backup at once, on the machine that is recorded with it, and QEMU copies its disks into ' +
    'the folder while it runs. The folder gets an image of each disk, which is whole when the command ends, copies of what ' +
    'its firmware keeps, and sockets: qmp.sock, agent.sock, console.sock. It has no network but what --qemu-arg gives it. ' +
    'QEMU outlives this command. If that is interrupted, the VM runs on; "backup recover" has its disks copied to the end. ' +
    'Until then the repository keeps the run. Files are compared with their records before; that every byte is what it was ' +
    'is seen with --verify, which reads them all first.',
].join('\n\n');

export function restoreOptions(yargs: Argv): Argv<RestoreArgs> {
  return withKey(withMachine(withRepo(withVm(yargs)), START))
    .option('vm', {
      type: 'string',
      describe:
        'into a folder: name or UUID of the VM, as it was when it was backed up; in place: the VM, as for other commands',
      group: 'VM:',
    })
    .positional('run', runName)
    .positional('dir', { type: 'string', describe: 'folder to be made' })
    .option('in-place', {
      type: 'boolean',
      default: false,
      describe: "write back onto the VM's images what differs; the VM must be shut off",
    })
    .option('start', {
      type: 'boolean',
      default: false,
      describe: 'run a VM from the backup at once, and copy its disks into the folder meanwhile',
      group: START,
    })
    .option('limit', {
      type: 'number',
      describe: 'MiB per second that are copied at most, all disks together',
      group: START,
    })
    .option('boot-timeout', {
      ...bootTimeout,
      describe: "with --start: seconds for the guest's agent to answer, before its disks are copied all the same",
    })
    .option('dry-run', { ...dryRun, describe: 'with --in-place: only say how much differs' })
    .option('yes', yes)
    .option('format', { choices: restoreFormats, default: 'qcow2' as const, describe: 'of the images made' })
    .option('disk', {
      type: 'string',
      array: true,
      nargs: 1,
      default: [],
      describe: 'id, serial or file name of a disk; may be repeated (default: all)',
    })
    .option('image', {
      type: 'string',
      array: true,
      nargs: 1,
      default: [],
      describe:
        'with --in-place, ID=FILE: the image of a disk, if this host does not know it, or knows another; may be repeated',
    })
    .option('verify', {
      type: 'boolean',
      defaultDescription: 'yes, but not with --start',
      describe: 'compare what is read with its sums, and what is written with what is read; --no-verify: do not',
    })
    .option('monitor-timeout', monitorTimeout)
    .option('lock-timeout', lockTimeout)
    .option('timeout', timeout)
    .example('$0 backup restore latest /restored/db1 --from /backup --vm db1', 'the newest run of a VM')
    .example('$0 backup restore 3fa2b1c0 /restored/db1 --from /backup --format raw', 'an earlier one, by its id')
    .example(
      "$0 backup restore latest /restored/db1 --from /backup --vm db1 --key-command 'pass show backup/db1'",
      'one that is encrypted',
    )
    .example('$0 backup restore latest --in-place --from /backup --vm db1', "back onto the VM's own images")
    .example('$0 backup restore latest /vms/db1 --from /backup --vm db1 --start', 'a VM that runs within seconds')
    .epilogue(EPILOGUE);
}

export async function runRestore(args: RestoreArgs, output: Output, signal: AbortSignal): Promise<ExitCode> {
  const strays = [...givenOfMachine(args), ...(args.limit === undefined ? [] : ['--limit'])];
  if (!args.start && strays.length > 0)
    throw new UsageError('E_USAGE', `${strays.join(', ')}: expected with --start only`);
  if (args.start) return await runStart(args, output, signal);
  if (args['in-place']) return await runInPlace(args, output, signal);
  if (args.dir === undefined) throw new UsageError('E_USAGE', 'where to? Name a folder to be made, or give --in-place');
  if (args['dry-run']) throw new UsageError('E_USAGE', '--dry-run: expected with --in-place only');
  if (args.image.length > 0) throw new UsageError('E_USAGE', '--image: expected with --in-place only');
  const restored = await restoreRun({
    repository: path(args.repo),
    run: args.run,
    vm: args.vm,
    target: path(args.dir),
    format: args.format,
    disks: args.disk,
    verify: args.verify ?? true,
    key: await keyOf(args, signal),
    limitMs: limitMs('timeout', args.timeout),
    signal,
    onProgress: output.progress,
    onWarning: (text) => {
      output.warn(text);
    },
  });
  output.result(restored satisfies Result<'backup restore'>, () => renderRestored(restored));
  return exitCode('done');
}

async function runStart(args: RestoreArgs, output: Output, signal: AbortSignal): Promise<ExitCode> {
  if (args['in-place'])
    throw new UsageError('E_USAGE', 'expected --start or --in-place: a VM that starts has images of its own');
  if (args['dry-run']) throw new UsageError('E_USAGE', '--dry-run: expected with --in-place only');
  if (args.image.length > 0) throw new UsageError('E_USAGE', '--image: expected with --in-place only');
  if (args.format !== 'qcow2')
    throw new UsageError(
      'E_USAGE',
      '--format raw: with --start the images are qcow2, which alone can lie on the backup',
    );
  if (args.dir === undefined) throw new UsageError('E_USAGE', 'where to? Name the folder to be made for the VM');
  const repository = path(args.repo);
  const started = await startRun({
    ...machineChoice(args),
    repository,
    run: args.run,
    vm: args.vm,
    target: path(args.dir),
    stateDir: path(args['state-dir']),
    lockWaitMs: lockWaitMs(args),
    monitorTimeoutMs: limitMs('monitor-timeout', args['monitor-timeout']),
    disks: args.disk,
    verify: args.verify,
    bootLimitMs: limitMs('boot-timeout', args['boot-timeout']),
    speed: bytesPerSecond('limit', args.limit),
    limitMs: limitMs('timeout', args.timeout),
    signal,
    goOn: `fsfreeze-bridge backup recover --repo ${shellWord(repository)}`,
    onProgress: output.progress,
    onStarted: (vm) => {
      output.told({ event: 'started', ...vm });
      output.warn(renderRunning(vm));
    },
    onTransfer: ({ current, total, rate, leftMs }) => {
      output.event({ event: 'transfer', current, total, bytesPerSecond: rate, ...defined({ leftMs }) });
    },
    onWarning: (text) => {
      output.warn(text);
    },
  });
  output.result(started satisfies Result<'backup restore --start'>, () => renderStarted(started));
  return exitCode('done');
}

async function runInPlace(args: RestoreArgs, output: Output, signal: AbortSignal): Promise<ExitCode> {
  if (args.dir !== undefined) throw new UsageError('E_USAGE', `expected either a folder (${args.dir}) or --in-place`);
  const vm = await vmOf(args);
  const restored = await restoreInPlace({
    lock: lockRequest(args, vm, { operation: 'restore' }, { signal, onProgress: output.progress }),
    monitorTimeoutMs: limitMs('monitor-timeout', args['monitor-timeout']),
    repository: path(args.repo),
    run: args.run,
    disks: args.disk,
    images: imagesOf(args.image),
    verify: args.verify ?? true,
    key: await keyOf(args, signal),
    dryRun: args['dry-run'],
    limitMs: limitMs('timeout', args.timeout),
    confirm: confirmWith(args.yes, signal),
    signal,
    onProgress: output.progress,
    onWarning: (text) => {
      output.warn(text);
    },
  });
  output.result(restored satisfies Result<'backup restore --in-place'>, () => renderInPlace(restored));
  return exitCode('done');
}

function imagesOf(words: readonly string[]): ReadonlyMap<string, string> {
  return new Map(
    words.map((word) => {
      const [, id, file] = /^([^=]+)=(.+)$/s.exec(word) ?? [];
      if (id === undefined || file === undefined) {
        throw new UsageError('E_USAGE', `--image ${JSON.stringify(word)}: expected ID=FILE`);
      }
      return [id, path(file)] as const;
    }),
  );
}
