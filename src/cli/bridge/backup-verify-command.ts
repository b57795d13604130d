// `fsfreeze-bridge backup verify`: compares runs with their records, and with --boot starts them.
import { tmpdir } from 'node:os';
import type { Argv } from 'yargs';
import { UsageError } from '../../errors.js';
import type { BootOptions, GuestCommand } from '../../host/boot/boot-options.js';
import { bootRuns } from '../../host/boot/boot-runs.js';
import type { LuksKey } from '../../host/images/luks-key.js';
import { toldBoot } from '../../host/repository/boot-verdict.js';
import { verifyRuns } from '../../host/repository/keep-house.js';
import { houseOptions, type HouseArgs } from './backup-commands.js';
import { keyOf, withKey, type KeyArgs } from './backup-key.js';
import { runNames, timeout, withRepository } from './backup-options.js';
import { exitCode, type ExitCode } from './exit-codes.js';
import { bootTimeout, machineChoice, withMachine, type MachineArgs } from './machine-options.js';
import { limitMs, lockTimeout, path } from './options.js';
import type { Output } from './output.js';
import { renderVerified, type JudgedRun } from './render-backup.js';
import type { Result } from './results/results.js';

interface VerifyArgs extends HouseArgs, MachineArgs, KeyArgs {
  runs: string[];
  timeout: number;
  sums: boolean;
  boot: boolean;
  run: string[];
  expect: string[];
  'ignore-mount': string[];
  scratch: string;
  'boot-timeout': number;
  'check-timeout': number;
}

const BOOT = 'Boot test:';
const list = { type: 'string', array: true, nargs: 1, default: [] as string[], group: BOOT } as const;

const EPILOGUE = [
  'Reads every file of the runs and of what they lie on once, and compares it with the sums, the size and the backing ' +
    'file that were recorded when it was made; then runs "qemu-img check". What was found is kept: a run that was found ' +
    'damaged is never again the base of another. What keeps it from looking (a time limit, rights, a file in use) is an ' +
    'error, and is not recorded. Ends with 10 if a run is damaged or fails its boot test.',
  'Of a run that is encrypted the sums are compared without its key; its images are looked into only with it. What was ' +
    'not looked into is said, and recorded, and it ends with 11 then.',
  'With --boot each run named that is sound is started as a guest of its own: on the machine that is recorded with it, with ' +
    "empty images over the run's files, which are only read, and without a network. It passes if its agent answers, " +
    'every filesystem and writer that was held in the backup can be held again, its kernel, if it can be asked, tells of ' +
    'no damage, and each --run prints what is expected. The result, a screenshot and the log of the serial console are kept beside the run; the ' +
    'next backup after a run that failed is a full one. Nothing of the guest is left, also if this tool is killed. A guest ' +
    'that fails under KVM is started again by emulation, and only that counts.',
].join('\n\n');

export function verifyOptions(yargs: Argv): Argv<VerifyArgs> {
  return withKey(withMachine(withRepository(yargs), BOOT))
    .positional('runs', runNames)
    .option('sums', { type: 'boolean', default: true, describe: 'read every file; --no-sums: with --boot, only boot' })
    .option('boot', { type: 'boolean', default: false, describe: 'start the runs named, too, isolated', group: BOOT })
    .option('run', { ...list, describe: 'command line that the guest must run (/bin/sh); may be repeated' })
    .option('expect', {
      ...list,
      describe: 'regular expression that what the --run at the same place prints must match; without any, exit code 0',
    })
    .option('ignore-mount', { ...list, describe: 'mount point that need not be mounted again; may be repeated' })
    .option('scratch', {
      type: 'string',
      default: tmpdir(),
      defaultDescription: 'the folder for temporary files',
      describe: 'folder for what the guest writes',
      group: BOOT,
    })
    .option('boot-timeout', bootTimeout)
    .option('check-timeout', {
      type: 'number',
      default: 120,
      describe: 'seconds from then on for applications to start and for every check to pass',
      group: 'Limits:',
    })
    .option('lock-timeout', lockTimeout)
    .option('timeout', { ...timeout, describe: 'seconds for everything but boot tests' })
    .example('$0 backup verify --repo /backup', 'every run of every VM')
    .example('$0 backup verify latest --repo /backup --vm db1', 'the newest run of a VM')
    .example('$0 backup verify latest --repo /backup --vm db1 --boot', 'does it start, and do its applications?')
    .example(
      `$0 backup verify latest --repo /backup --vm db1 --boot --run 'psql -U app -Atc "select count(*) from orders"' --expect '^[1-9]'`,
      'is the data there? (the agent must run commands for the host)',
    )
    .example('$0 backup verify --repo /backup --key-file /etc/db1.key', 'encrypted runs, too, all of them')
    .epilogue(EPILOGUE);
}

export async function runVerify(args: VerifyArgs, output: Output, signal: AbortSignal): Promise<ExitCode> {
  const house = houseOptions(args, output, signal);
  const key = await keyOf(args, signal);
  const boot = bootOptions(args, key);
  const verified = args.sums
    ? await verifyRuns({
        ...house,
        key,
        needsKey: args.boot,
        runs: args.runs,
        limitMs: limitMs('timeout', args.timeout),
      })
    : [];
  const judged = new Map<string, JudgedRun>(verified.map((each) => [each.run, each]));
  if (boot !== undefined) {
    const sound = args.sums
      ? verified.filter(({ problems }) => problems.length === 0).map(({ run }) => run)
      : args.runs;
    for (const { vm, verdict, files } of sound.length === 0 ? [] : await bootRuns({ ...house, runs: sound, boot })) {
      const { run } = verdict;
      judged.set(run, {
        vm,
        run,
        problems: [],
        unchecked: [],
        ...judged.get(run),
        boot: { ...toldBoot(verdict), ...files },
      });
    }
  }
  const runs = [...judged.values()];
  const code = exitCode(!runs.every((each) => isSound(each)) ? 'damaged' : runs.every(isWhole) ? 'done' : 'unchecked');
  output.result({ exitCode: code, runs } satisfies Result<'backup verify'>, () => renderVerified(runs));
  return code;
}

/** All of it was looked at. */
function isWhole({ unchecked }: JudgedRun): boolean {
  return unchecked.length === 0;
}

function isSound({ problems, boot }: JudgedRun): boolean {
  return problems.length === 0 && (boot?.problems.length ?? 0) === 0;
}

/** Undefined without --boot. Throws a UsageError. */
function bootOptions(args: VerifyArgs, key: LuksKey | undefined): BootOptions | undefined {
  const commands = commandsOf(args);
  if (!args.boot) {
    if (!args.sums) throw new UsageError('E_USAGE', '--no-sums: expected with --boot only, nothing else would be done');
    if (commands.length > 0) throw new UsageError('E_USAGE', '--run: expected with --boot only');
    return undefined;
  }
  if (args.runs.length === 0) throw new UsageError('E_USAGE', '--boot: which runs? Name them, "latest" for instance');
  return {
    ...machineChoice(args),
    key,
    bootLimitMs: limitMs('boot-timeout', args['boot-timeout']),
    checkLimitMs: limitMs('check-timeout', args['check-timeout']),
    commands,
    ignoredMounts: args['ignore-mount'],
    scratch: path(args.scratch),
  };
}

function commandsOf({ run: lines, expect }: VerifyArgs): GuestCommand[] {
  if (expect.length > 0 && expect.length !== lines.length) {
    const message = `expected one --expect for each --run or none at all, found ${lines.length} --run and ${expect.length} --expect`;
    throw new UsageError('E_USAGE', message);
  }
  return lines.map((line, index) => ({ line, expect: patternOf(expect[index]) }));
}

function patternOf(text: string | undefined): RegExp | undefined {
  try {
    // Lines of what a command prints have beginnings and ends of their own.
    return text === undefined ? undefined : new RegExp(text, 'm');
  } catch (cause) {
    throw new UsageError('E_USAGE', `--expect ${JSON.stringify(text)}: expected a regular expression`, { cause });
  }
}
