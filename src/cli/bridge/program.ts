// Declares the commands of fsfreeze-bridge, runs the one that was called, and gives its exit code. How an error or a signal
// ends a command is decided here; what a command does is in its own file.
import yargs, { type Argv } from 'yargs';
import { QuiesceError, UsageError } from '../../errors.js';
import { interruption } from '../../confirm.js';
import { unlessAborted } from '../../deadline.js';
import { PACKAGE_VERSION } from '../../version.js';
import * as backups from './backup-commands.js';
import { restoreOptions, runRestore } from './backup-restore-command.js';
import { runOptions, runRun } from './backup-run-command.js';
import { runVerify, verifyOptions } from './backup-verify-command.js';
import { exitCode, exitCodes, type ExitCode } from './exit-codes.js';
import * as guest from './guest-commands.js';
import { Output, type Streams } from './output.js';
import { recoverOptions, runRecover } from './recover-command.js';
import { copyOptions, runCopy } from './snapshot-copy-command.js';
import { createOptions, runCreate } from './snapshot-create-command.js';
import { pruneOptions, runPrune } from './snapshot-prune-command.js';
import { runWatch, watchOptions } from './snapshot-watch-command.js';
import * as sets from './snapshot-set-commands.js';
import { runStartArgs, startArgsOptions } from './start-args-command.js';

const CODES = exitCodes.map(({ code, meaning }) => `  ${code}  ${meaning}`).join('\n');

const SET_COMMANDS = 'create, list, show, commit, revert, delete, copy, prune, watch or start-args';

/** Declared commands run with this. */
interface Wiring {
  readonly output: Output;
  readonly signal: AbortSignal;
  readonly run: (work: Promise<ExitCode>) => Promise<void>;
  /** For a command that holds no guest and leaves nothing half done at any moment: a signal ends it at once. */
  readonly read: (work: Promise<ExitCode>) => Promise<void>;
}

/** All commands with their options and texts: for the parser, and for the manual page. */
export function declareCommands(parser: Argv, { output, signal, run, read }: Wiring): Argv {
  return parser
    .scriptName('fsfreeze-bridge')
    .usage('$0 COMMAND\n\nSnapshots of running virtual machines that are proved to be consistent.')
    .command('snapshot', 'make and handle snapshot sets', (snapshot) =>
      snapshot
        .command('create', 'hold the guest, cut its disks in one transaction, let it go', createOptions, (args) =>
          run(runCreate(args, output, signal)),
        )
        .command('list', 'the sets of a VM', sets.listOptions, (args) => read(sets.runList(args, output)))
        .command('show <set>', 'one set: files, level, evidence', sets.showOptions, (args) =>
          read(sets.runShow(args, output)),
        )
        .command('commit <set>', 'merge its overlays back while the guest runs', sets.commitOptions, (args) =>
          run(sets.runCommit(args, output, signal)),
        )
        .command('revert <set>', 'back to the cut, with the VM shut off', sets.revertOptions, (args) =>
          run(sets.runRevert(args, output, signal)),
        )
        .command('delete <set>', 'remove a set that nobody uses', sets.deleteOptions, (args) =>
          run(sets.runDelete(args, output, signal)),
        )
        .command('start-args', 'the images a plain QEMU is to be started from', startArgsOptions, (args) =>
          read(runStartArgs(args, output)),
        )
        .command('copy <set> <dir>', 'copy the state of the cut into a folder', copyOptions, (args) =>
          run(runCopy(args, output, signal)),
        )
        .command('prune', 'merge the oldest sets into their bases, and forget them', pruneOptions, (args) =>
          run(runPrune(args, output, signal)),
        )
        .command('watch', 'tell when an overlay grows beyond a limit', watchOptions, (args) =>
          run(runWatch(args, output, signal)),
        )
        .demandCommand(1, 1, `snapshot needs a command: ${SET_COMMANDS}`)
        .example('$0 snapshot create --qmp /run/vm1/qmp.sock --qga /run/vm1/qga.sock', 'cut all writable disks'),
    )
    .command('backup', 'back up VMs into a repository, and restore them', (backup) =>
      backup
        .command('run [vm]', 'hold the guest, let QEMU begin to copy, let it go', runOptions, (args) =>
          run(runRun(args, output, signal)),
        )
        .command('list', 'the runs in a repository', backups.listOptions, (args) => read(backups.runList(args, output)))
        .command('show <run>', 'one run: files, level, evidence', backups.showOptions, (args) =>
          read(backups.runShow(args, output)),
        )
        .command(
          'verify [runs..]',
          'compare files with their sums and their chains, and start what they hold',
          verifyOptions,
          (args) => run(runVerify(args, output, signal)),
        )
        .command(
          'restore <run> [dir]',
          "make the disks of a run in a folder, or write them back onto the VM's images",
          restoreOptions,
          (args) => run(runRestore(args, output, signal)),
        )
        .command(
          'forget [runs..]',
          'remove runs, without harm to those that lie on them',
          backups.forgetOptions,
          (args) => run(backups.runForget(args, output, signal)),
        )
        .command('recover', 'remove what killed tools left in a repository', backups.recoverOptions, (args) =>
          run(backups.runRecover(args, output, signal)),
        )
        .demandCommand(1, 1, 'backup needs a command: run, list, show, verify, restore, forget or recover')
        .example('$0 backup run db1 --to /backup', 'back up a VM'),
    )
    .command('status', 'monitor, agent and disks of a VM', guest.statusOptions, (args) =>
      read(guest.runStatus(args, output)),
    )
    .command('writers', 'the writers in the guest', guest.writersOptions, (args) =>
      read(guest.runWriters(args, output)),
    )
    .command('thaw', 'thaw the guest', guest.thawOptions, (args) => run(guest.runThaw(args, output)))
    .command('recover', 'put right what killed tools and QEMUs left behind', recoverOptions, (args) =>
      run(runRecover(args, output, signal)),
    )
    .command('wait', 'wait until the agent answers', guest.waitOptions, (args) =>
      read(guest.runWait(args, output, signal)),
    )
    .demandCommand(1, 'which command? See --help')
    .check(checkGivenOnce)
    .strict()
    .locale('en')
    .recommendCommands()
    .version(PACKAGE_VERSION)
    .wrap(110)
    .epilogue(`Exit codes:\n${CODES}`);
}

/** Options that may be given several times. */
const LISTS = ['disk', 'image', 'runs', 'run', 'expect', 'ignore-mount', 'ignoreMount', 'qemu-arg', 'qemuArg'];

// yargs makes a list of an option that is given twice. Nobody can say which of two monitors is meant.
function checkGivenOnce(args: Readonly<Record<string, unknown>>): boolean {
  const twice = Object.entries(args).find(
    ([name, value]) => Array.isArray(value) && !LISTS.includes(name) && name !== '_',
  );
  if (twice === undefined) return true;
  const [name, values] = twice;
  throw new UsageError('E_USAGE', `--${name} is given more than once (${String(values)}): expected one value`);
}

// yargs takes any value of a flag but "true" for false, and says nothing: `--boot=latest` would not boot.
function checkFlags(words: readonly string[], args: Readonly<Record<string, unknown>>): boolean {
  for (const word of words) {
    if (word === '--') break;
    const [, long, short, value = ''] = /^(?:--([^=]+)|-([A-Za-z]))=(.*)$/s.exec(word) ?? [];
    const name = long ?? short;
    if (name === undefined || typeof args[name] !== 'boolean' || value === 'true' || value === 'false') continue;
    throw new UsageError('E_USAGE', `${word}: this option takes no value, expected true or false at most`);
  }
  return true;
}

/** Runs one command line. `signal` interrupts it: the guest is thawed first. Never throws. */
export async function runBridge(words: readonly string[], streams: Streams, signal: AbortSignal): Promise<ExitCode> {
  const output = new Output(streams, words.includes('--json'));
  let code: ExitCode = exitCode('done');
  const run = async (work: Promise<ExitCode>): Promise<void> => {
    code = await work;
  };
  const interrupted = (): QuiesceError =>
    new QuiesceError('E_INTERRUPTED', interruption(signal, 'nothing was changed'));
  const read = (work: Promise<ExitCode>): Promise<void> => run(unlessAborted(work, signal, interrupted));
  const parser = declareCommands(yargs([...words]), { output, signal, run, read }).check((args) =>
    checkFlags(words, args),
  );
  try {
    await quietly(parser);
    return code;
  } catch (error) {
    return output.failure(error instanceof Error && error.name === 'YError' ? usage(error) : error);
  }
}

/** What yargs has inside, and its types leave out. */
interface WithInternals {
  getInternalMethods(): { getUsageInstance(): { cacheHelpMessage: () => void } };
}

// Makes yargs throw its errors, instead of ending the process with its own words and code.
async function quietly(parser: Argv): Promise<void> {
  // It words the help of a command that it has begun, in case that fails, and nobody sees it: that takes longer than the rest
  // of the parser.
  const internals = (parser as unknown as WithInternals).getInternalMethods();
  internals.getUsageInstance().cacheHelpMessage = () => undefined;
  await parser
    .exitProcess(false)
    .fail((message: string | null, error: unknown) => {
      throw error instanceof Error ? error : new UsageError('E_USAGE', message ?? 'the command line is wrong');
    })
    .parseAsync();
}

function usage(error: Error): UsageError {
  return new UsageError('E_USAGE', error.message);
}
