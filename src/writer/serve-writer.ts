// Serves as a resident writer, for an application that has Node: speaks the conversation of fsfreeze-hook.d/README.md
// ("Resident writers") on standard input and output. What holds the application is the caller's. The other end of the
// conversation: src/freeze/writers/resident.ts.
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';

/**
 * How the session came out: `failed` was given up before it was frozen, `expired` ended by its lease, `broken` must not
 * be counted on.
 */
export type WriterOutcome = 'ok' | 'failed' | 'expired' | 'broken';

/**
 * What the application does in each phase. What throws, or rejects, is a failure, and its message the reason that people
 * see. The description (NAME.json beside the program) names the same phases.
 */
export interface WriterHandlers {
  /** Everything slow: connect, flush, find out what there is. Throws a NotApplicable where there is nothing. */
  readonly prepare: () => void | Promise<void>;
  /** Takes the hold. Applications wait from now on. */
  readonly freeze: () => void | Promise<void>;
  /** Proves the hold; asked before the first filesystem freezes, and again after the last one thawed. */
  readonly verify?: () => void | Promise<void>;
  /** Lets go. Comes after a failure, too, without the hold having been taken. */
  readonly thaw: (outcome: WriterOutcome) => void | Promise<void>;
  /** After the session, with applications running. */
  readonly post?: (outcome: WriterOutcome) => void | Promise<void>;
}

/** Thrown by `prepare` or `freeze`: nothing of the application runs here, and that is no failure. */
export class NotApplicable extends Error {
  override readonly name = 'NotApplicable';
}

export interface WriterStreams {
  readonly input: Readable;
  readonly output: Writable;
}

const REASON_CHARACTERS = 500;
/** Exit code of a writer that has nothing to do here. */
const NOT_APPLICABLE = 3;

/**
 * Answers until its standard input ends; then lets go if it holds, and returns. The program is to end then: close what
 * keeps it alive, or call process.exit(). Whatever else it prints must go to standard error: a line on standard output
 * that nobody asked for ends it. Ends the process with exit code 3 for a NotApplicable. Throws what `thaw` throws at the
 * end of standard input.
 */
export async function serveWriter(
  handlers: WriterHandlers,
  { input, output }: WriterStreams = { input: process.stdin, output: process.stdout },
): Promise<void> {
  let holds = false;
  // The agent has died: the end of standard input follows.
  output.on('error', () => undefined);
  for await (const line of createInterface({ input })) {
    const [phase = '', outcome = 'ok'] = line.trim().split(/\s+/);
    try {
      if (phase === 'freeze') holds = true;
      await act(handlers, phase, outcome);
      if (phase === 'thaw') holds = false;
      output.write('ok\n');
    } catch (error) {
      if (error instanceof NotApplicable && (phase === 'prepare' || phase === 'freeze')) {
        process.stderr.write(`${error.message}\n`);
        process.exit(NOT_APPLICABLE);
      }
      output.write(`error ${reasonOf(error)}\n`);
    }
  }
  if (holds) await handlers.thaw('broken');
}

async function act(handlers: WriterHandlers, phase: string, outcome: string): Promise<void> {
  switch (phase) {
    case 'prepare':
    case 'freeze':
      await handlers[phase]();
      return;
    case 'verify':
      if (handlers.verify === undefined) break;
      await handlers.verify();
      return;
    case 'thaw':
      await handlers.thaw(asOutcome(outcome));
      return;
    case 'post':
      if (handlers.post === undefined) break;
      await handlers.post(asOutcome(outcome));
      return;
  }
  throw new Error(`this writer has no phase '${phase}'`);
}

/** A word that a newer agent says is no promise. */
function asOutcome(word: string): WriterOutcome {
  return word === 'ok' || word === 'failed' || word === 'expired' ? word : 'broken';
}

/** One line, as long as people are shown: the answer has no other, and a longer one than 4096 characters is a fault. */
function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.replaceAll(/\s+/g, ' ').trim().slice(0, REASON_CHARACTERS);
}
