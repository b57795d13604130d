// `fsfreeze-bridge snapshot prune`: merges the oldest sets into their bases.
import type { Argv } from 'yargs';
import { defined } from '../../defined.js';
import { UsageError } from '../../errors.js';
import { pruneSnapshots } from '../../host/prune/snapshot-prune.js';
import type { Manifest } from '../../host/sets/manifest.js';
import { confirmWith } from '../../confirm-prompt.js';
import { exitCode, type ExitCode } from './exit-codes.js';
import {
  bytesPerSecond,
  diskTimeout,
  limitMs,
  lockRequest,
  lockTimeout,
  monitorTimeout,
  path,
  speed,
  vmOf,
  withVm,
  yes,
  type LockArgs,
  type VmArgs,
} from './options.js';
import { findAndLockVm } from '../../host/sets/vm-lock.js';
import type { Output } from './output.js';
import type { Result } from './results/results.js';

interface PruneArgs extends VmArgs, LockArgs {
  keep: number;
  'older-than': number | undefined;
  'dry-run': boolean;
  yes: boolean;
  speed: number | undefined;
  timeout: number;
  'monitor-timeout': number;
}

const DAY_MS = 86_400_000;

export function pruneOptions(yargs: Argv): Argv<PruneArgs> {
  return withVm(yargs)
    .option('keep', { type: 'number', demandOption: true, describe: 'so many of the newest sets stay, at least 1' })
    .option('older-than', { type: 'number', describe: 'only sets older than so many days go' })
    .option('dry-run', { type: 'boolean', default: false, describe: 'say what would be done' })
    .option('yes', yes)
    .option('speed', speed)
    .option('timeout', diskTimeout)
    .option('monitor-timeout', monitorTimeout)
    .option('lock-timeout', lockTimeout)
    .example('$0 snapshot prune --keep 7 --vm db1 --dry-run', 'what would go')
    .example('$0 snapshot prune --keep 7 --vm db1 --yes', 'the seven newest sets stay')
    .epilogue(
      'The overlay of an old set is merged into its base, and the set forgotten; newer sets keep their cuts, and the VM ' +
        'may run or be shut off. An interrupted prune goes on when it is called again. It refuses, before anything is ' +
        'changed: a set on a disk of which no newer set lies (commit it when it is the newest), images that a clone, ' +
        'another VM or a process uses, a set whose base was written to, sets that are being worked on.',
    );
}

export async function runPrune(args: PruneArgs, output: Output, signal: AbortSignal): Promise<ExitCode> {
  const vm = await vmOf(args);
  const olderThan = args['older-than'];
  if (olderThan !== undefined && !(olderThan >= 0)) {
    throw new UsageError('E_LIMIT', `--older-than: expected days, found ${olderThan}`);
  }
  const speed = bytesPerSecond('speed', args.speed);
  const monitorTimeoutMs = limitMs('monitor-timeout', args['monitor-timeout']);
  const request = lockRequest(args, vm, { operation: 'prune' }, { signal, onProgress: output.progress });
  await using locked = await findAndLockVm(request, monitorTimeoutMs);
  const plan = await pruneSnapshots({
    store: locked.store,
    stateDir: path(args['state-dir']),
    monitor: vm.monitor,
    keep: args.keep,
    ...(olderThan === undefined ? {} : { olderThanMs: olderThan * DAY_MS }),
    dryRun: args['dry-run'],
    monitorTimeoutMs,
    limitMs: limitMs('timeout', args.timeout),
    ...defined({ speed }),
    confirm: confirmWith(args.yes, signal),
    signal,
    onProgress: output.progress,
  });
  const names = (sets: readonly Manifest[]): string[] => sets.map(({ set }) => set);
  const result = {
    dryRun: args['dry-run'],
    merged: names(plan.merge),
    forgotten: names(plan.forget),
    kept: names(plan.keep),
  } satisfies Result<'snapshot prune'>;
  output.result(result, () => {
    const [merged, forgotten] = args['dry-run'] ? ['would be merged', 'would be forgotten'] : ['merged', 'forgotten'];
    const line = (what: string, sets: readonly string[]): string[] =>
      sets.length === 0 ? [] : [`${what}: ${sets.join(', ')}`];
    const lines = [...line(merged, result.merged), ...line(forgotten, result.forgotten), ...line('kept', result.kept)];
    return lines.length === 0 ? [`no snapshot sets of ${vm.name}`] : lines;
  });
  return exitCode('done');
}
