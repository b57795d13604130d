// Runs one command line of fsfreeze-snapshot: one call, one exit code. Results go to standard output, progress and
// complaints to standard error. The process around it: main.ts. What is about writers: writers.ts.
import { geteuid } from 'node:process';
import { confirmWith } from '../../confirm-prompt.js';
import { BridgeError, describeError, UnreachableError } from '../../errors.js';
import { sessionsDir } from '../../freeze/writers/record.js';
import { namesIn } from '../../linux/kernel-values.js';
import { printableJson, printableLine, printableRow } from '../../printable.js';
import { runHold } from '../../snapshot/run-hold.js';
import type { Signals } from '../../snapshot/run-exec.js';
import { readCommandLine, type Invocation } from './command-line.js';
import { describeCollected, describeHold, describeRun } from './describe.js';
import { exitCodeOf, OUR_FAILURE, passesCodeOn, type ExitCode } from './exit-codes.js';
import { readGuestSettings, type GuestSettings } from './guest-settings.js';
import { openMachine } from './machine.js';
import { describeProviders, listProviders } from './providers.js';
import { describeRevert, revertRun } from './revert.js';
import { findRun, listRuns, releaseRun } from './runs.js';
import { agentThatAnswers } from './start-agent.js';
import { startSnapshot, stopSnapshot } from './start-stop.js';
import { execCommand, treeCommand, type TakeContext } from './take.js';
import { runWriters, type WritersInvocation } from './writers.js';

export interface Streams {
  readonly stdout: (text: string) => void;
  readonly stderr: (text: string) => void;
  /** Settles when standard input ends: a caller that dies ends it, too. */
  readonly inputEnd: () => Promise<void>;
}

type Run = Exclude<Invocation, { readonly kind: 'print' }>;

/** Never throws. */
export async function runSnapshot(words: readonly string[], streams: Streams, signals: Signals): Promise<ExitCode> {
  let kind: Invocation['kind'] | undefined;
  try {
    const invocation = readCommandLine(words);
    kind = invocation.kind;
    if (invocation.kind !== 'print') return await run(invocation, streams, signals);
    streams.stdout(invocation.text);
    return 0;
  } catch (error) {
    // A wrong call as well: any other code is that of the command.
    const isCommand = passesCodeOn(kind === undefined ? words : [kind]);
    const code = isCommand ? OUR_FAILURE : exitCodeOf(error);
    const message = printableLine(describeError(error));
    streams.stderr(`fsfreeze-snapshot: ${message}\n`);
    if (words.includes('--json')) {
      const name = error instanceof BridgeError ? error.code : 'E_INTERNAL';
      // A command's standard output is its own.
      const tell = isCommand ? streams.stderr : streams.stdout;
      tell(`${printableJson({ error: { code: name, message, exitCode: code } })}\n`);
    }
    return code;
  }
}

async function run(invocation: Run, streams: Streams, signals: Signals): Promise<ExitCode> {
  const settings = readGuestSettings(invocation.config);
  const tell = (value: object, rows: readonly string[]): void => {
    streams.stdout(invocation.json ? `${printableJson(value)}\n` : `${rows.map(printableRow).join('\n')}\n`);
  };
  const note = (text: string): void => {
    streams.stderr(`${text.split('\n').map(printableRow).join('\n')}\n`);
  };
  if (isAboutWriters(invocation)) return await runWriters(invocation, settings, { tell, note, signal: signals.abort });
  if (geteuid?.() !== 0) throw new UnreachableError('E_ROOT', 'expected to be run as root');
  const findAgent = async (): Promise<string | undefined> => await agentThatAnswers(settings, invocation.config, note);
  const holds = holdsGuest(invocation);
  const agentSocket = holds || leftHeld(invocation, settings) ? await findAgent() : settings.agentSocket;
  await using machine = openMachine({ ...settings, agentSocket }, invocation.config, note);
  try {
    return await runOn({ machine, signals, json: invocation.json, tell, note }, invocation, streams);
  } finally {
    // Where nobody else starts it again, applications that a dead one held would stand still until the next run.
    if (holds)
      await findAgent().catch((error: unknown) => {
        note(describeError(error));
      });
  }
}

/** A shell that stands by collects after its command: an agent that died with it has sessions left, which the next releases. */
function leftHeld({ kind }: Run, { runtimeDir }: GuestSettings): boolean {
  return kind === 'gc' && namesIn(sessionsDir(runtimeDir)).length > 0;
}

/** `start-snapshot` is a call of `-t`, which asks for itself. */
function holdsGuest(invocation: Run): boolean {
  if (invocation.kind === 'exec' || invocation.kind === '-t') return !invocation.take.dryRun;
  return invocation.kind === 'hold';
}

function isAboutWriters(invocation: Run): invocation is WritersInvocation {
  return invocation.kind.startsWith('writers ');
}

async function runOn(
  context: TakeContext,
  invocation: Exclude<Run, WritersInvocation>,
  streams: Streams,
): Promise<ExitCode> {
  const { machine, signals, tell, note, json } = context;
  switch (invocation.kind) {
    case 'exec':
      return await execCommand(context, invocation.take, invocation.words);
    case '-t': {
      const { take, target, noStdin } = invocation;
      // Never settles where there is no standard input to end.
      const released = noStdin ? new Promise<void>(() => undefined) : streams.inputEnd();
      return await treeCommand(context, { take, target, isDetached: noStdin, released });
    }
    case 'start-snapshot':
      return await startSnapshot(machine, invocation.given, streams);
    case 'stop-snapshot': {
      const runs = await stopSnapshot(machine);
      tell({ released: runs }, runs);
      return 0;
    }
    case 'hold': {
      const { exitCode, report } = await runHold(machine, invocation, signals);
      note(json ? printableJson(report) : describeHold(report).join('\n'));
      return exitCode;
    }
    case 'list': {
      const runs = listRuns(machine);
      tell({ runs }, runs.length === 0 ? ['no snapshots are held'] : runs.flatMap((one) => describeRun(one)));
      return 0;
    }
    case 'show': {
      const found = findRun(machine, invocation.run);
      tell(found, describeRun(found));
      return 0;
    }
    case 'release':
      await releaseRun(machine, invocation.run);
      tell({ released: invocation.run }, [`${invocation.run} is released`]);
      return 0;
    case 'revert': {
      const { run, yes } = invocation;
      const results = await revertRun(machine, run, confirmWith(yes, signals.abort));
      tell({ reverted: results }, describeRevert(results));
      return 0;
    }
    case 'gc': {
      const collected = await machine.collect(invocation.run);
      const rows = describeCollected(collected);
      tell(collected, rows.length === 0 ? ['nothing is left of runs that are over'] : rows);
      // With a name it is a shell that stands by: nobody hears it.
      if (invocation.run === undefined) for (const { run } of collected.lost) machine.journal.forget(run);
      return collected.left.length + collected.lost.length === 0 ? 0 : 69;
    }
    case 'providers': {
      const list = await listProviders(machine, invocation.paths);
      tell(list, describeProviders(list));
      return 0;
    }
  }
}
