// Runs one command line of fsfreeze-snapshot: one call, one exit code. Results go to standard output, progress and
// complaints to standard error. The process around it: main.ts.
import { BridgeError, describeError } from '../../errors.js';
import { printableJson, printableLine, printableRow } from '../../printable.js';
import { readCommandLine, type Invocation } from './command-line.js';
import { exitCodeOf, type ExitCode } from './exit-codes.js';
import { readGuestSettings } from './guest-settings.js';
import { describeLint, lintWriter } from './lint.js';
import { describeList, listWriters } from './list.js';
import { describeTest, exitCodeOfTest, testWriter } from './test.js';

export interface Streams {
  readonly stdout: (text: string) => void;
  readonly stderr: (text: string) => void;
}

/** `signal`: lets go, and ends. Never throws. */
export async function runSnapshot(words: readonly string[], streams: Streams, signal: AbortSignal): Promise<ExitCode> {
  try {
    const invocation = readCommandLine(words);
    if (invocation.kind !== 'print') return await run(invocation, streams, signal);
    streams.stdout(invocation.text);
    return 0;
  } catch (error) {
    const code = exitCodeOf(error);
    const message = printableLine(describeError(error));
    streams.stderr(`fsfreeze-snapshot: ${message}\n`);
    if (words.includes('--json')) {
      const name = error instanceof BridgeError ? error.code : 'E_INTERNAL';
      streams.stdout(`${printableJson({ error: { code: name, message, exitCode: code } })}\n`);
    }
    return code;
  }
}

async function run(
  invocation: Exclude<Invocation, { readonly kind: 'print' }>,
  { stdout, stderr }: Streams,
  signal: AbortSignal,
): Promise<ExitCode> {
  const settings = readGuestSettings(invocation.config);
  const tell = (value: object, rows: readonly string[]): void => {
    stdout(invocation.json ? `${printableJson(value)}\n` : `${rows.map(printableRow).join('\n')}\n`);
  };
  switch (invocation.kind) {
    case 'list': {
      const list = await listWriters(settings);
      tell(list, describeList(list));
      return 0;
    }
    case 'lint': {
      const lint = lintWriter(settings, invocation.file, invocation.as);
      tell(lint, describeLint(lint));
      return lint.problems.length === 0 ? 0 : 1;
    }
    case 'test': {
      const { name, holdMs } = invocation;
      const progress = (text: string): void => {
        stderr(`${printableLine(text)}\n`);
      };
      const rehearsal = await testWriter(settings, { name, holdMs, signal, progress });
      tell(rehearsal, describeTest(rehearsal));
      return exitCodeOfTest(rehearsal, signal);
    }
  }
}
