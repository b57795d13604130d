// Where a command's words go: results to stdout (text, or with --json one object as the last line), progress and
// complaints to stderr.
import { BridgeError, describeError, type Facts } from '../../errors.js';
import { exitCodeOf, type ExitCode } from './exit-codes.js';
import { clip } from '../../host/guest/clip.js';
import { printableJson, printableLine, printableRow } from './printable.js';

export interface Streams {
  readonly stdout: (text: string) => void;
  readonly stderr: (text: string) => void;
}

/** Progress is told of from here on: most commands are done before. */
const PROGRESS_AFTER_MS = 2000;
const PROGRESS_EVERY_MS = 1000;

export class Output {
  readonly #streams: Streams;
  readonly #json: boolean;
  readonly #startMs = performance.now();
  #lastMs = 0;

  constructor(streams: Streams, json: boolean) {
    this.#streams = streams;
    this.#json = json;
  }

  /** The command's result: `rows` for people, each of which stays one row; `value` for programs. */
  result(value: object, rows: () => readonly string[]): void {
    this.#streams.stdout(this.#json ? `${printableJson(value)}\n` : `${rows().map(printableRow).join('\n')}\n`);
  }

  /** Told at most once a second, and only after two seconds of work. */
  readonly progress = (text: string): void => {
    const now = performance.now();
    if (now - this.#startMs < PROGRESS_AFTER_MS || now - this.#lastMs < PROGRESS_EVERY_MS) return;
    this.#lastMs = now;
    this.#streams.stderr(`${printableLine(text)}\n`);
  };

  /** A line people should see at once. */
  warn(text: string): void {
    this.#streams.stderr(`fsfreeze-bridge: ${printableLine(clip(text))}\n`);
  }

  /** One line for people, with --json one object as well; the exit code. Never throws. */
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

/** What a guest reported may be in them, of any length. */
const MAX_FACTS_BYTES = 1024 * 1024;

function bounded(facts: Facts): Facts {
  const bytes = Buffer.byteLength(JSON.stringify(facts));
  return bytes <= MAX_FACTS_BYTES ? facts : { leftOut: `${bytes} bytes of facts, at most ${MAX_FACTS_BYTES} are told` };
}

// Causes repeat what the message says already, or hold the facts behind it.
function oneLine(error: unknown): string {
  if (!(error instanceof BridgeError)) return describeError(error);
  const cause = error.cause === undefined ? '' : describeError(error.cause);
  return cause === '' || error.message.includes(cause) ? error.message : `${error.message}: ${cause}`;
}
