// `fsfreeze-bridge backup run`: backs up a VM into a repository, or says what that would take.
import type { Argv } from 'yargs';
import { defined } from '../../defined.js';
import { UsageError } from '../../errors.js';
import { dryRunBackup } from '../../host/backup/backup-dry-run.js';
import type { BackupOptions } from '../../host/backup/backup-at.js';
import { backupVm } from '../../host/backup/backup-run.js';
import { compressions, type Compression } from '../../host/backup/compression.js';
import type { BackupMode } from '../../host/backup/backup-plan.js';
import { openGuestAgent } from '../../host/guest/guest-agent.js';
import type { askedLevels } from '../../host/guest/requirement.js';
import { encryptionOf, withEncryption, type EncryptArgs } from './backup-key.js';
import { exitCode, type ExitCode } from './exit-codes.js';
import {
  agentLimits,
  bytesOfRate,
  limitMs,
  lockWaitMs,
  path,
  vmOf,
  withHold,
  withVm,
  type HoldArgs,
  type VmArgs,
  requireOption,
} from './options.js';
import type { Output } from './output.js';
import { renderDryRun, renderRun } from './render-backup.js';
import type { Result } from './results/results.js';

interface RunArgs extends VmArgs, HoldArgs, EncryptArgs {
  to: string;
  init: boolean;
  auto: boolean;
  full: boolean;
  incremental: boolean;
  'dry-run': boolean;
  require: (typeof askedLevels)[number];
  'allow-lower': boolean;
  disk: string[];
  'keep-checkpoints': number;
  'max-chain': number;
  limit: string;
  compress: Compression | undefined;
  'min-free': number;
  'stall-timeout': number;
}

const EPILOGUE = [
  'The guest is held only for the instant at which QEMU begins to copy all disks; it writes on while they are copied. The ' +
    'run appears in the repository when every file of it is whole, on the disk, and summed by reading it. A run that ' +
    'fails or is killed costs nothing but itself: the next one is an increment of the newest run that is there.',
  'For each disk the VM records what it writes since each of the newest runs (dirty bitmaps, kept in a qcow2 image). A ' +
    'disk is copied in full if none of them can be used, and the run says why: QEMU was killed, the disk was resized, the ' +
    'run is gone or was found damaged, the chain is long enough. A raw image keeps them only as long as QEMU ' +
    'runs, and in a libvirt domain not at all; the same is true of a qcow2 that has its data in a raw file.',
  'The repository holds plain qcow2 images; each manifest.json in it says how to restore them with qemu-img alone. A ' +
    'folder that is empty, or not there, becomes a repository, unless the VM is backed up to another one already (a ' +
    'filesystem may not be mounted): then give --init. QEMU itself writes the images: its user must be allowed to ' +
    'reach the folder.',
  'With --encrypt each image, of any kind, lies in a LUKS file (AES-256), and so do the variables of the firmware and a ' +
    "TPM's state; the names of files, the manifest and the domain's definition are readable by all. Whoever loses the key " +
    'has lost the runs. The key is text, taken byte by byte as by "qemu-img --object secret,file=FILE". Keep it elsewhere: ' +
    '"openssl rand -base64 32" makes a good one; shorter ones are stretched, which takes QEMU a fifth of a second a disk. ' +
    'A chain has one key: another one begins with --new-key, which copies every disk as a whole. Once a run is encrypted, the next one without --encrypt is ' +
    'refused, unless you say --no-encrypt.',
].join('\n\n');

export function runOptions(yargs: Argv): Argv<RunArgs> {
  return withHold(
    withEncryption(withVm(yargs))
      .positional('vm', { type: 'string', describe: 'the VM, as --vm names it; or give --qmp' })
      .option('to', { type: 'string', demandOption: true, describe: 'folder of the repository' })
      .alias('to', 'repo')
      .option('init', {
        type: 'boolean',
        default: false,
        describe: 'make a repository of an empty folder although the VM is backed up to another one',
      })
      .option('auto', {
        type: 'boolean',
        default: false,
        describe: 'each disk: what changed where that is known, else the whole (this is the default)',
      })
      .option('full', { type: 'boolean', default: false, describe: 'every disk as a whole' })
      .option('incremental', {
        type: 'boolean',
        default: false,
        describe: 'fail if a disk has to be copied as a whole',
      })
      .option('dry-run', {
        alias: 'n',
        type: 'boolean',
        default: false,
        describe: 'only say what would be copied, and why',
      })
      .option('require', requireOption)
      .option('allow-lower', {
        type: 'boolean',
        default: false,
        describe: 'back up below that level, too, and say so (exit 7)',
      })
      .option('disk', {
        type: 'string',
        array: true,
        nargs: 1,
        default: [],
        describe:
          'node, serial, device or file of a disk; may be repeated (default: all writable disks that can be cut)',
      })
      .option('keep-checkpoints', {
        type: 'number',
        default: 3,
        describe: 'newest runs of each disk since which the VM records its writes',
      })
      .option('max-chain', {
        type: 'number',
        default: 30,
        describe: 'files of a chain, before a full one is made again',
      })
      .option('limit', {
        type: 'string',
        default: 'auto',
        describe:
          'MiB per second at most, all disks together, to copy and to read again; auto: as fast as the requests of the guest let it; none',
      })
      .option('compress', {
        choices: compressions,
        describe: 'compress the images; readers need a qemu-img that knows it',
      })
      .option('min-free', {
        type: 'number',
        default: 256,
        describe: 'MiB that must stay free in the repository; at half of that the backup is given up',
      }),
  )
    .option('stall-timeout', {
      type: 'number',
      default: 60,
      describe: 'seconds without progress, after which the backup is given up',
      group: 'Limits:',
    })
    .example('$0 backup run db1 --to /backup', 'a VM of the configuration: full at first, then what changed')
    .example('$0 backup run --qmp /run/vm1/qmp.sock --qga /run/vm1/qga.sock --to /backup', 'a VM by its sockets')
    .example('$0 backup run db1 --to /backup --dry-run', 'how much would be copied, and why')
    .example('$0 backup run db1 --to /backup --full --compress zstd --limit 100', 'smaller, at 100 MiB per second')
    .example('$0 backup run db1 --to /backup --encrypt --key-file /etc/db1.key', 'unreadable without that key')
    .epilogue(EPILOGUE);
}

export async function runRun(args: RunArgs, output: Output, signal: AbortSignal): Promise<ExitCode> {
  const options = await optionsOf(args, output, signal);
  if (args['dry-run']) return await runDry(options, output);
  const { manifest, path: folder, satisfied, missing, completion, troubles } = await backupVm(options);
  const code = exitCode(satisfied ? 'done' : 'below-level');
  const told = { exitCode: code, satisfied, path: folder, troubles, ...defined({ completion }), ...manifest };
  output.result(told satisfies Result<'backup run'>, () => renderRun(manifest, folder));
  if (!satisfied)
    output.warn(`level ${manifest.level} reached, ${manifest.required} asked for: ${manifest.evidence.join('; ')}`);
  for (const trouble of troubles) output.warn(trouble);
  for (const { what, reason } of missing) output.warn(`not in the backup: ${what}: ${reason}`);
  return code;
}

async function optionsOf(args: RunArgs, output: Output, signal: AbortSignal): Promise<BackupOptions> {
  return {
    vm: await vmOf(args),
    stateDir: path(args['state-dir']),
    lockWaitMs: lockWaitMs(args),
    requirement: { asked: args.require, allowLower: args['allow-lower'] },
    disks: args.disk,
    repository: path(args.to),
    init: args.init,
    mode: modeOf(args),
    keepCheckpoints: wholeNumber('keep-checkpoints', args['keep-checkpoints'], 1, 16),
    maxChain: wholeNumber('max-chain', args['max-chain'], 1, 200),
    minFreeBytes: wholeNumber('min-free', args['min-free'], 0, 2 ** 30) * 1024 * 1024,
    speed: speedOf(args.limit),
    compression: args.compress,
    encrypt: await encryptionOf(args, signal),
    isNewKey: args['new-key'],
    leaseMs: limitMs('lease', args.lease),
    cutTimeoutMs: limitMs('cut-timeout', args['cut-timeout']),
    stallMs: limitMs('stall-timeout', args['stall-timeout']),
    monitorTimeoutMs: limitMs('monitor-timeout', args['monitor-timeout']),
    agentLimits: agentLimits(args),
    openAgent: openGuestAgent,
    signal,
    onProgress: output.progress,
    onTransfer: ({ current, total, rate, leftMs }) => {
      output.event({ event: 'transfer', current, total, bytesPerSecond: rate, ...defined({ leftMs }) });
    },
  };
}

function speedOf(limit: string): BackupOptions['speed'] {
  if (limit === 'auto') return 'auto';
  if (limit === 'none') return undefined;
  const bytes = limit === '' ? undefined : bytesOfRate(Number(limit));
  if (bytes !== undefined) return bytes;
  const expected = 'expected MiB per second above 0 (at most 2^32), "auto" or "none"';
  throw new UsageError('E_LIMIT', `--limit: ${expected}, found ${JSON.stringify(limit)}`);
}

function modeOf({ auto, full, incremental, 'new-key': isNewKey }: RunArgs): BackupMode {
  if (incremental && isNewKey) throw new UsageError('E_USAGE', 'expected either --incremental or --new-key');
  if ([auto, full, incremental].filter(Boolean).length > 1) {
    throw new UsageError('E_USAGE', 'expected one of --auto, --full and --incremental');
  }
  if (full) return 'full';
  return incremental ? 'incremental' : 'auto';
}

function wholeNumber(option: string, value: number, least: number, most: number): number {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value;
  throw new UsageError('E_LIMIT', `--${option}: expected a whole number from ${least} to ${most}, found ${value}`);
}

async function runDry(options: BackupOptions, output: Output): Promise<ExitCode> {
  const dry = await dryRunBackup(options);
  const code = exitCode(dry.room === undefined || dry.room.free >= dry.room.needed ? 'done' : 'cut');
  output.result({ exitCode: code, ...dry } satisfies Result<'backup run --dry-run'>, () => renderDryRun(dry));
  return code;
}
