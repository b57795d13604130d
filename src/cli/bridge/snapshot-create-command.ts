// `fsfreeze-bridge snapshot create`: cuts the disks of a VM, or checks what a cut could be.
import type { Argv } from 'yargs';
import { UsageError } from '../../errors.js';
import { checkCreate, type CheckOptions } from '../../host/create/create-check.js';
import { openGuestAgent } from '../../host/guest/guest-agent.js';
import { DEFAULT_MIN_FREE_BYTES } from '../../host/create/overlays.js';
import type { askedLevels } from '../../host/guest/requirement.js';
import { createSnapshot } from '../../host/create/snapshot-create.js';
import type { Manifest } from '../../host/sets/manifest.js';
import { exitCode, type ExitCode } from './exit-codes.js';
import {
  agentLimits,
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
import { renderCheck } from './render-check.js';
import { renderManifest } from './render-manifest.js';
import type { Result } from './results/results.js';

interface CreateArgs extends VmArgs, HoldArgs {
  name: string | undefined;
  require: (typeof askedLevels)[number];
  'allow-lower': boolean;
  disk: string[];
  check: boolean;
  'overlay-dir': string | undefined;
  'min-free': number;
}

const EPILOGUE = [
  'Levels, from best to worst: application (writers held and verified, filesystems frozen), filesystem (filesystems ' +
    'frozen), crash (all disks at one instant, nothing more). The label is the level reached and proved, for each disk ' +
    'and, as the lowest of them, for the set.',
  'Below the level asked for nothing is cut (exit 4), unless --allow-lower is given: then the set is cut and labelled ' +
    '(exit 7). --require crash still holds the guest if its agent answers, and goes on without if it does not. A paused ' +
    'VM cannot be held: its sets are crash.',
  'A disk that cannot be cut (shared, encrypted with no key at hand, on the network, passed through, ...) is left out, ' +
    'which the set and a warning say; named by --disk it is an error. An overlay of a LUKS disk is made by QEMU with ' +
    "the disk's own secret, for which the VM stands still some seconds before the guest is held.",
  'After a cut the VM writes to new files, the overlays; the images it was started with hold the snapshot and must not ' +
    'be written to. Before the VM is started again with its old command line, run "snapshot commit", or it starts at ' +
    'the cut.',
].join('\n\n');

export function createOptions(yargs: Argv): Argv<CreateArgs> {
  return withHold(
    withVm(yargs)
      .option('name', { type: 'string', describe: 'name of the snapshot set (default: the time, 20260131-093000)' })
      .alias('name', 'label')
      .option('require', requireOption)
      .option('allow-lower', {
        type: 'boolean',
        default: false,
        describe: 'cut below that level, too, and say so (exit 7)',
      })
      .option('disk', {
        type: 'string',
        array: true,
        nargs: 1,
        default: [],
        describe:
          'node, serial, device or file of a disk to cut; may be repeated (default: all writable disks that can be cut)',
      })
      .option('check', {
        type: 'boolean',
        default: false,
        describe: 'only say what would be cut, what would be left out and why, and which level can be had at most',
      })
      .option('overlay-dir', { type: 'string', describe: 'folder for the overlays (default: beside each image)' })
      .option('min-free', {
        type: 'number',
        default: DEFAULT_MIN_FREE_BYTES / 1024 / 1024,
        describe: 'MiB that must be free for each overlay',
      }),
  )
    .example('$0 snapshot create --qmp /run/vm1/qmp.sock --qga /run/vm1/qga.sock', 'cut all writable disks')
    .example('$0 snapshot create --vm db1 --name nightly --require application --json', 'a VM of the configuration')
    .example('$0 snapshot create --vm libvirt:db1', 'a libvirt domain')
    .example('$0 snapshot create --vm db1 --disk data0 --disk wal0', 'two of its disks')
    .example('$0 snapshot create --vm db1 --check', 'what would be cut, and what it could be worth')
    .epilogue(EPILOGUE);
}

export async function runCreate(args: CreateArgs, output: Output, signal: AbortSignal): Promise<ExitCode> {
  const vm = await vmOf(args, args['overlay-dir']);
  if (!(args['min-free'] >= 0)) throw new UsageError('E_LIMIT', `--min-free: expected MiB, found ${args['min-free']}`);
  const plan = {
    vm,
    stateDir: path(args['state-dir']),
    lockWaitMs: lockWaitMs(args),
    requirement: { asked: args.require, allowLower: args['allow-lower'] },
    disks: args.disk,
    minFreeBytes: args['min-free'] * 1024 * 1024,
    monitorTimeoutMs: limitMs('monitor-timeout', args['monitor-timeout']),
    agentLimits: agentLimits(args),
    openAgent: openGuestAgent,
  };
  if (args.check) return await runCheck(plan, output);
  const { manifest, satisfied, missing, notes } = await createSnapshot({
    ...plan,
    set: args.name ?? timeName(new Date()),
    leaseMs: limitMs('lease', args.lease),
    cutTimeoutMs: limitMs('cut-timeout', args['cut-timeout']),
    signal,
    onProgress: output.progress,
  });
  const code = exitCode(satisfied ? 'done' : 'below-level');
  const result = { exitCode: code, satisfied, notes, ...manifest } satisfies Result<'snapshot create'>;
  output.result(result, () => renderManifest(manifest));
  if (!satisfied)
    output.warn(`level ${manifest.level} reached, ${manifest.required} asked for: ${manifest.evidence.join('; ')}`);
  for (const trouble of completionTrouble(manifest)) output.warn(trouble);
  for (const { what, reason } of missing) output.warn(`not in the set: ${what}: ${reason}`);
  for (const note of notes) output.warn(note);
  return code;
}

/** The set is whole without it: writers keep what they could have forgotten. */
function completionTrouble({ completion }: Manifest): string[] {
  if (completion === undefined) return [];
  const failed = completion.writers.filter(({ result }) => result === 'failed');
  return [
    ...(completion.error === undefined ? [] : [completion.error]),
    ...failed.map(
      ({ name, reason = 'unknown' }) => `writer ${name} failed when it was told that the set is recorded: ${reason}`,
    ),
  ];
}

/** Gives the exit code that create would leave with, as far as that can be said. */
async function runCheck(options: CheckOptions, output: Output): Promise<ExitCode> {
  const check = await checkCreate(options);
  const hasRoom = check.rooms.every(({ free, needed }) => free >= needed);
  const below = options.requirement.allowLower ? 'below-level' : 'quiesce';
  const code = exitCode(!hasRoom ? 'cut' : check.satisfied ? 'done' : below);
  const result = { exitCode: code, ...check } satisfies Result<'snapshot create --check'>;
  output.result(result, () => renderCheck(check));
  return code;
}

/** `20260131-093000`, local time. */
function timeName(now: Date): string {
  const two = (value: number): string => String(value).padStart(2, '0');
  const day = `${now.getFullYear()}${two(now.getMonth() + 1)}${two(now.getDate())}`;
  return `${day}-${two(now.getHours())}${two(now.getMinutes())}${two(now.getSeconds())}`;
}
