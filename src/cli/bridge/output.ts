// Prints what a command has to say: results to stdout (text, or with --json one object as the last line), progress and
// complaints to stderr.
import { BridgeError, describeError, type Facts } from '../../errors.js';
import { exitCodeOf, type ExitCode } from './exit-codes.js';
import { clip } from '../../host/guest/clip.js';
import { printableJson, printableLine, printableRow } from '../../printable.js';
import type { Result, ResultName } from './results/results.js';

export interface Streams {
  readonly stdout: (text: string) => void;
  readonly stderr: (text: string) => void;
}

/** Progress is told of only after this time: most commands are done before. */
const PROGRESS_AFTER_MS = 2000;
const PROGRESS_EVERY_MS = 1000;

export class Output {
  readonly #streams: Streams;
  readonly #json: boolean;
  readonly #startMs = performance.now();
  #lastMs = 0;
  #lastEventMs = 0;

  constructor(streams: Streams, json: boolean) {
    this.#streams = streams;
    this.#json = json;
  }

  /** The command's result: `rows` for people, each of which stays one row; `value` for programs, as its schema says. */
  result(value: Result<ResultName>, rows: () => readonly string[]): void {
    this.#streams.stdout(this.#json ? `${printableJson(value)}\n` : `${rows().map(printableRow).join('\n')}\n`);
  }

  /** Prints the text, but at most once a second, and not in the first two seconds. */
  readonly progress = (text: string): void => {
    const now = performance.now();
    if (now - this.#startMs < PROGRESS_AFTER_MS || now - this.#lastMs < PROGRESS_EVERY_MS) return;
    this.#lastMs = now;
    this.#streams.stderr(`${printableLine(text)}\n`);
  };

  /** With --json one object more, before the result, at most once a second. */
  event(value: Readonly<Record<string, unknown>>): void {
    const now = performance.now();
    if (!this.#json || now - this.#lastEventMs < PROGRESS_EVERY_MS) return;
    this.#lastEventMs = now;
    this.#streams.stdout(`${printableJson(value)}\n`);
  }

  /** The same for what is said once. */
  told(value: Readonly<Record<string, unknown>>): void {
    if (this.#json) this.#streams.stdout(`${printableJson(value)}\n`);
  }

  /** Prints a line that people should see at once. */
  warn(text: string): void {
    this.#streams.stderr(`fsfreeze-bridge: ${printableLine(clip(text))}\n`);
  }

  /** Prints one line for people, with --json one object as well, and returns the exit code. Never throws. */
  failure(error: unknown): ExitCode {
    const code = exitCodeOf(error);
    const message = printableLine(clip(oneLine(error)));
    this.#streams.stderr(`fsfreeze-bridge: ${message}\n`);
    if (this.#json) {
      const facts = error instanceof BridgeError ? { facts: bounded(error.facts), outcome: error.outcome } : {};
      const name = error instanceof BridgeError ? error.code : 'E_INTERNAL';
      this.#streams.stdout(`${printableJson({ error: { code: name, message, exitCode: code, ...facts } })}\n`);
    }
    return code;
  }
}

/** Facts may hold what a guest reported, of any length. */
const MAX_FACTS_BYTES = 1024 * 1024;

function bounded(facts: Facts): Facts {
  const bytes = Buffer.byteLength(JSON.stringify(facts));
  return bytes <= MAX_FACTS_BYTES ? facts : { leftOut: `${bytes} bytes of facts, at most ${MAX_FACTS_BYTES} are told` };
}

// A cause often repeats what the message says: it is told once.
function oneLine(error: unknown): string {
  if (!(error instanceof BridgeError)) return describeError(error);
  const cause = error.cause === undefined ? '' : describeError(error.cause);
  return cause === '' || error.message.includes(cause) ? error.message : `${error.message}: ${cause}`;
}
