// The command line of fsfreeze-bridge: which command runs, how failures and signals leave. One call, one exit code.
import yargs, { type Argv } from 'yargs';
import { UsageError } from '../../errors.js';
import { toolVersion } from '../../host/tool-version.js';
import { exitCode, exitCodes, type ExitCode } from './exit-codes.js';
import * as guest from './guest-commands.js';
import { Output, type Streams } from './output.js';
import { createOptions, runCreate } from './snapshot-create-command.js';
import * as sets from './snapshot-set-commands.js';

const codes = exitCodes.map(({ code, meaning }) => `  ${code}  ${meaning}`).join('\n');

/** Runs one command line. `signal` interrupts it: the guest is thawed first. Never throws. */
export async function runBridge(words: readonly string[], streams: Streams, signal: AbortSignal): Promise<ExitCode> {
  const output = new Output(streams, words.includes('--json'));
  let code: ExitCode = exitCode('done');
  const run = async (work: Promise<ExitCode>): Promise<void> => {
    code = await work;
  };
  const parser = yargs([...words])
    .scriptName('fsfreeze-bridge')
    .usage('$0 COMMAND\n\nSnapshots of running virtual machines that are proved to be consistent.')
    .command('snapshot', 'make and handle snapshot sets', (snapshot) =>
      snapshot
        .command('create', 'hold the guest, cut its disks in one transaction, let it go', createOptions, (args) =>
          run(runCreate(args, output, signal)),
        )
        .command('list', 'the sets of a VM', sets.listOptions, (args) => run(sets.runList(args, output)))
        .command('show <set>', 'one set: files, level, evidence', sets.showOptions, (args) =>
          run(sets.runShow(args, output)),
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
        .demandCommand(1, 1, 'snapshot needs a command: create, list, show, commit, revert or delete')
        .example('$0 snapshot create --qmp /run/vm1/qmp.sock --qga /run/vm1/qga.sock', 'cut all writable disks'),
    )
    .command('status', 'monitor, agent and disks of a VM', guest.statusOptions, (args) =>
      run(guest.runStatus(args, output)),
    )
    .command('writers', 'the writers in the guest', guest.writersOptions, (args) => run(guest.runWriters(args, output)))
    .command('thaw', 'thaw the guest', guest.thawOptions, (args) => run(guest.runThaw(args, output)))
    .command('wait', 'wait until the agent answers', guest.waitOptions, (args) =>
      run(guest.runWait(args, output, signal)),
    )
    .demandCommand(1, 'which command? See --help')
    .strict()
    .locale('en')
    .recommendCommands()
    .version(toolVersion)
    .wrap(110)
    .epilogue(`Exit codes:\n${codes}`);
  try {
    await quietly(parser);
    return code;
  } catch (error) {
    return output.failure(error instanceof Error && error.name === 'YError' ? usage(error) : error);
  }
}

// Failures come back as exceptions, instead of ending the process with yargs' own words and code.
async function quietly(parser: Argv): Promise<void> {
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
