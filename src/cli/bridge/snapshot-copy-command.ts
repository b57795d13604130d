// `fsfreeze-bridge snapshot copy`: copies the state of a cut into a folder.
import { join } from 'node:path';
import type { Argv } from 'yargs';
import { defined } from '../../defined.js';
import { UsageError } from '../../errors.js';
import { copySnapshot } from '../../host/copy/snapshot-copy.js';
import type { CopyRecord } from '../../host/copy/copy-record.js';
import { exitCode, type ExitCode } from './exit-codes.js';
import {
  bytesPerSecond,
  limitMs,
  lockRequest,
  lockTimeout,
  monitorTimeout,
  path,
  setName,
  speed,
  vmOf,
  withVm,
  type LockArgs,
  type VmArgs,
} from './options.js';
import type { Output } from './output.js';
import type { Result } from './results/results.js';

const formats = ['qcow2', 'raw'] as const;

interface CopyArgs extends VmArgs, LockArgs {
  'monitor-timeout': number;
  set: string;
  dir: string;
  format: (typeof formats)[number];
  compress: boolean;
  flatten: boolean;
  verify: boolean;
  speed: number | undefined;
  timeout: number;
}

const EPILOGUE = [
  'The folder must not be there; it has its name once everything in it is whole, verified and on the disk. A copy that ' +
    'was killed leaves a folder .draft-..., which the next copy beside it removes. Its manifest.json says what the copy ' +
    'is worth, with the SHA-256 of each file, and how to restore it by hand.',
  'The VM may run: what is copied is read-only since the cut. While it is read the set can neither be committed, ' +
    'reverted nor deleted, and QEMU lets nobody write to its images. A set whose bases were written to is refused.',
].join('\n\n');

export function copyOptions(yargs: Argv): Argv<CopyArgs> {
  return withVm(yargs)
    .positional('set', setName)
    .positional('dir', { type: 'string', demandOption: true, describe: 'folder to be made' })
    .option('format', { choices: formats, default: 'qcow2' as const, describe: 'of the images made' })
    .option('compress', { type: 'boolean', default: false, describe: 'compress them (qcow2)' })
    .option('flatten', {
      type: 'boolean',
      default: true,
      describe: 'one image per disk; --no-flatten: one per layer, each naming the next one beside it',
    })
    .option('verify', {
      type: 'boolean',
      default: true,
      describe: 'read both again and compare; --no-verify: do not',
    })
    .option('speed', speed)
    .option('monitor-timeout', monitorTimeout)
    .option('lock-timeout', lockTimeout)
    .option('timeout', { type: 'number', default: 86_400, describe: 'seconds for everything', group: 'Limits:' })
    .example('$0 snapshot copy nightly /backup/vm1-nightly --vm db1', 'one qcow2 per disk, verified')
    .example('$0 snapshot copy nightly /backup/vm1-nightly --vm db1 --compress --speed 50', 'smaller, and slower')
    .epilogue(EPILOGUE);
}

export async function runCopy(args: CopyArgs, output: Output, signal: AbortSignal): Promise<ExitCode> {
  const vm = await vmOf(args);
  if (args.format === 'raw' && (args.compress || !args.flatten)) {
    const message = '--format raw can neither be compressed nor name a layer below: leave out --compress, --no-flatten';
    throw new UsageError('E_FORMAT', message);
  }
  const target = path(args.dir);
  const speed = bytesPerSecond('speed', args.speed);
  const record = await copySnapshot({
    lock: lockRequest(args, vm, { operation: 'copy', set: args.set }, { signal, onProgress: output.progress }),
    monitorTimeoutMs: limitMs('monitor-timeout', args['monitor-timeout']),
    set: args.set,
    target,
    format: args.format,
    compress: args.compress,
    flatten: args.flatten,
    verify: args.verify,
    ...defined({ speed }),
    limitMs: limitMs('timeout', args.timeout),
    signal,
    onProgress: output.progress,
  });
  for (const doubt of record.doubts) output.warn(`${args.set}: ${doubt}`);
  output.result({ target, ...record } satisfies Result<'snapshot copy'>, () => renderCopy(record, target));
  return exitCode('done');
}

function renderCopy({ set, level, verified, disks }: CopyRecord, target: string): string[] {
  return [
    `snapshot set ${set}, consistency level ${level}, copied to ${target}${verified ? ' and verified' : ', NOT VERIFIED'}`,
    ...disks.flatMap(({ id, image, files, restore }) => {
      const bytes = files.reduce((sum, { size }) => sum + size, 0);
      return [`  ${id}: ${join(target, image)} (${Math.ceil(bytes / 1024 / 1024)} MiB)`, `    restore: ${restore}`];
    }),
  ];
}
