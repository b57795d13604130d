// Keeps one virsh connected and feeds it with command lines: to start one and let it connect takes longer than a
// command, and a guest may be frozen meanwhile. Its output is cut into answers here; what they mean is virsh.ts. virsh
// writes its prompt, with readline the line it was given, then the answer. Each command is followed by one that virsh
// does not know: it flushes its answers before it writes an error, also where it keeps them back (libvirt's tools/vsh.c
// without readline, before it began to flush its prompt; 9.0 for one).
import { randomBytes } from 'node:crypto';
import type { Readable, Writable } from 'node:stream';
import { execa } from 'execa';
import { Deadline, withLimit } from '../../../deadline.js';
import { BridgeError, DeadlineError, UsageError } from '../../../errors.js';

const PROMPT = 'virsh # ';
/**
 * Bytes of a line, its end included, that a virsh without readline reads as one: the rest would be a command of its
 * own.
 */
const SHORT_LINE = 1000;

/** The process ended instead of answering: `words` are its last. */
export class VirshEnded extends BridgeError {
  readonly words: string;

  constructor(words: string) {
    super('E_LIBVIRT', `virsh ended: ${words}`, { outcome: 'unknown' });
    this.words = words;
  }
}

/** For `sh`: virsh with both streams in one, so that errors are in their place. */
function argumentsOf(uri: string | undefined, words: readonly string[]): string[] {
  const connect = uri === undefined ? [] : ['--connect', uri];
  return ['-c', 'exec virsh "$@" 2>&1', 'sh', '--quiet', ...connect, ...words];
}

const options = {
  reject: false,
  stdout: 'pipe',
  stderr: 'ignore',
  // Out of the reach of a terminal's Ctrl-C: the thaw goes through it.
  detached: true,
  env: {
    LC_ALL: 'C.UTF-8',
    TERM: 'dumb',
    VIRSH_DEBUG: undefined,
    LIBVIRT_DEBUG: undefined,
    // Else virsh would write our lines into its user's history when it ends.
    XDG_CACHE_HOME: '/dev/null',
  },
} as const;

interface Waiting {
  readonly token: string;
  readonly resolve: (text: string) => void;
  readonly reject: (error: Error) => void;
}

export class VirshShell {
  readonly #uri: string | undefined;
  readonly #input: Writable;
  readonly #kill: () => void;
  #buffer = '';
  #waiting: Waiting | undefined;
  #ended = false;
  /**
   * True if virsh shows the lines it reads: readline does, and reads lines of any length. Known after the first answer.
   */
  #echoes: boolean | undefined;

  /** Starts virsh; it connects when it is first asked. */
  constructor(uri: string | undefined) {
    this.#uri = uri;
    // virsh ends with its input.
    const shell = execa('sh', argumentsOf(uri, []), { ...options, buffer: false, stdin: 'pipe' });
    const output: Readable = shell.stdout;
    output.setEncoding('utf8');
    output.on('data', (text: string) => {
      this.#buffer += text;
      this.#answer();
    });
    this.#input = shell.stdin;
    // A line that is written to a virsh which has just ended fails: its end says so.
    this.#input.on('error', () => undefined);
    this.#kill = () => shell.kill('SIGKILL');
    void shell.then(() => {
      this.#ended = true;
      this.#waiting?.reject(new VirshEnded(this.#buffer.replaceAll(PROMPT, '').trim()));
      this.#waiting = undefined;
    });
  }

  get ended(): boolean {
    return this.#ended;
  }

  /**
   * Gives all that virsh prints for one command. One at a time. Throws a VirshEnded, a DeadlineError (then the shell must
   * not be used any more), a UsageError for words that no line can hold.
   */
  async run(words: readonly string[], timeoutMs: number): Promise<string> {
    const deadline = new Deadline(timeoutMs);
    const what = `virsh ${words[0] ?? ''}`;
    const line = words.map(quoted).join(' ');
    if (Buffer.byteLength(line) >= SHORT_LINE) {
      if (this.#echoes === undefined) await withLimit(what, timeoutMs, this.#ask(''), 'none');
      if (this.#echoes !== true) return await once(this.#uri, words, deadline.remainingMs);
    }
    return await withLimit(what, deadline.remainingMs, this.#ask(`${line}\n`), 'unknown');
  }

  /** Ends it, whatever it is doing; what it asked libvirt for may go on. */
  close(): void {
    this.#input.end();
    if (this.#waiting !== undefined) this.#kill();
  }

  async #ask(line: string): Promise<string> {
    if (this.#ended) throw new VirshEnded('it is not there any more');
    const token = `fsb-${randomBytes(9).toString('hex')}`;
    const answer = new Promise<string>((resolve, reject) => {
      this.#waiting = { token, resolve, reject };
    });
    this.#input.write(`${line}${token}\n`);
    const text = await answer;
    const shown = `${PROMPT}${token}\n`;
    this.#echoes = text.endsWith(shown);
    if (!this.#echoes) return withoutPrompts(text);
    // The line it was given comes first; a long one is shown in part, but always as one line.
    return text.slice(text.indexOf('\n') + 1, -shown.length);
  }

  #answer(): void {
    if (this.#waiting === undefined) return;
    const { token, resolve } = this.#waiting;
    const end = `error: unknown command: '${token}'\n`;
    const at = this.#buffer.indexOf(end);
    if (at === -1) return;
    const text = this.#buffer.slice(0, at);
    this.#buffer = this.#buffer.slice(at + end.length);
    this.#waiting = undefined;
    resolve(text);
  }
}

/** A virsh of its own for one command: slower, as it has to connect. */
async function once(uri: string | undefined, words: readonly string[], timeoutMs: number): Promise<string> {
  const limits = { timeout: Math.max(1, timeoutMs), killSignal: 'SIGKILL', stripFinalNewline: false } as const;
  const result = await execa('sh', argumentsOf(uri, words), { ...options, ...limits, stdin: 'ignore' });
  if (result.timedOut) throw new DeadlineError(`virsh ${words[0] ?? ''}`, timeoutMs, { outcome: 'unknown' });
  if (result.exitCode === undefined) throw new VirshEnded(result.stdout);
  return result.stdout;
}

/**
 * The answer of a virsh that does not show what it reads: `virsh # ANSWERvirsh # `, behind complaints of its start, if
 * any.
 */
function withoutPrompts(text: string): string {
  if (!text.endsWith(PROMPT)) {
    throw new BridgeError('E_LIBVIRT', `virsh: expected its prompt behind an answer, found ${JSON.stringify(text)}`);
  }
  return text.slice(text.startsWith(PROMPT) ? PROMPT.length : 0, -PROMPT.length);
}

/** The word as virsh's own parser takes it: within single quotes everything but a single quote stands for itself. */
function quoted(word: string): string {
  if (/[\r\n\0]/.test(word)) {
    throw new UsageError('E_NAME', `libvirt: a name or path with a line break cannot be used: ${JSON.stringify(word)}`);
  }
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
