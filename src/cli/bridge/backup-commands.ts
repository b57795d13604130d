// The commands on a repository of backups: list, show, forget, recover. The VM need not be there. Verify is
// backup-verify-command.ts.
import type { Argv } from 'yargs';
import { defined } from '../../defined.js';
import { UsageError } from '../../errors.js';
import { findRun } from '../../host/repository/find-run.js';
import { forgetRuns, recoverRepository, type HouseOptions } from '../../host/repository/keep-house.js';
import { listRuns, viewRun } from '../../host/repository/look.js';
import { openRepository } from '../../host/repository/repository.js';
import { recoverStarted } from '../../host/start/recover-started.js';
import { dryRun, runName, runNames, timeout, withRepository, type RepositoryArgs } from './backup-options.js';
import { exitCode, type ExitCode } from './exit-codes.js';
import { limitMs, lockTimeout, lockWaitMs, path, type LockArgs } from './options.js';
import type { Output } from './output.js';
import { renderFindings, renderForgotten, renderRunView, renderStored } from './render-backup.js';
import type { Result } from './results/results.js';

export type HouseArgs = RepositoryArgs & LockArgs;

export function houseOptions(args: HouseArgs, output: Output, signal: AbortSignal): HouseOptions {
  return {
    repository: path(args.repo),
    vm: args.vm,
    lockWaitMs: lockWaitMs(args),
    signal,
    onProgress: output.progress,
    onWarning: (text) => {
      output.warn(text);
    },
  };
}

export function listOptions(yargs: Argv): Argv<RepositoryArgs> {
  return withRepository(yargs).example('$0 backup list --repo /backup', 'the runs of every VM');
}

export async function runList(args: RepositoryArgs, output: Output): Promise<ExitCode> {
  const repository = path(args.repo);
  const vms = await listRuns(repository, args.vm);
  output.result({ repository, vms } satisfies Result<'backup list'>, () => renderStored(vms));
  return exitCode('done');
}

export function showOptions(yargs: Argv): Argv<RepositoryArgs & { run: string }> {
  return withRepository(yargs)
    .positional('run', runName)
    .example('$0 backup show latest --repo /backup --vm db1', 'the newest run of a VM');
}

export async function runShow(args: RepositoryArgs & { run: string }, output: Output): Promise<ExitCode> {
  const repository = await openRepository(path(args.repo));
  const { vm, runs, manifest } = await findRun(repository, args.run, args.vm);
  const view = await viewRun(vm.folder, runs, manifest);
  output.result({ ...manifest, ...view } satisfies Result<'backup show'>, () => renderRunView(vm.name, manifest, view));
  return exitCode('done');
}

interface ForgetArgs extends HouseArgs {
  runs: string[];
  keep: number | undefined;
  'dry-run': boolean;
}

export function forgetOptions(yargs: Argv): Argv<ForgetArgs> {
  return withRepository(yargs)
    .positional('runs', runNames)
    .option('keep', { type: 'number', describe: 'forget all but the newest so many sound ones of each VM' })
    .option('dry-run', dryRun)
    .option('lock-timeout', lockTimeout)
    .example('$0 backup forget 3fa2b1c0 --repo /backup', 'one run')
    .example('$0 backup forget --keep 14 --repo /backup --vm db1', 'all but the newest 14 of a VM')
    .epilogue(
      'A run that others lie on is no longer shown, and its files go as soon as nothing lies on them: with a chain, that ' +
        'is when the last of its increments is forgotten. No other run is ever harmed. --keep counts only runs of which no ' +
        'damage is known, so that a sound one is never forgotten for a damaged one.',
    );
}

export async function runForget(args: ForgetArgs, output: Output, signal: AbortSignal): Promise<ExitCode> {
  const { runs, keep } = args;
  if (keep !== undefined && !(Number.isSafeInteger(keep) && keep >= 1)) {
    throw new UsageError('E_LIMIT', `--keep: expected a whole number from 1, found ${keep}`);
  }
  if ((keep === undefined) === (runs.length === 0)) {
    throw new UsageError('E_USAGE', 'expected either names of runs or --keep');
  }
  const vms = await forgetRuns({ ...houseOptions(args, output, signal), runs, keep, dryRun: args['dry-run'] });
  output.result({ dryRun: args['dry-run'], vms } satisfies Result<'backup forget'>, () => renderForgotten(vms));
  return exitCode('done');
}

interface RecoverArgs extends HouseArgs {
  'dry-run': boolean;
  timeout: number;
}

export function recoverOptions(yargs: Argv): Argv<RecoverArgs> {
  return withRepository(yargs)
    .option('dry-run', dryRun)
    .option('lock-timeout', lockTimeout)
    .option('timeout', { ...timeout, describe: 'seconds for the copying, of each VM that was started' })
    .example('$0 backup recover --repo /backup', 'after a crash of the host that made backups')
    .epilogue(
      'Removes runs that were never finished, and what was removed in part. What a killed tool left in QEMU, and a guest ' +
        'that it held, "fsfreeze-bridge recover" puts right on the host of the VM; it removes the unfinished run, too.\n\n' +
        'A VM that was started from a backup on this host (restore --start), and whose tool was killed or interrupted, has ' +
        'its disks copied to the end. If its QEMU has ended, its images are left as they are, and it says what to type.',
    );
}

export async function runRecover(args: RecoverArgs, output: Output, signal: AbortSignal): Promise<ExitCode> {
  const repository = path(args.repo);
  const house = { ...houseOptions(args, output, signal), dryRun: args['dry-run'] };
  const started = await recoverStarted({
    ...house,
    limitMs: limitMs('timeout', args.timeout),
    onTransfer: ({ current, total, rate, leftMs }) => {
      output.event({ event: 'transfer', current, total, bytesPerSecond: rate, ...defined({ leftMs }) });
    },
  });
  const findings = [...started, ...(await recoverRepository(house))];
  const isLeft = findings.some(({ status }) => status === 'yours' || status === 'planned');
  const code = exitCode(isLeft ? 'left' : 'done');
  const result = { repository, dryRun: args['dry-run'], findings, exitCode: code } satisfies Result<'backup recover'>;
  output.result(result, () => renderFindings(findings));
  return code;
}
