// One virsh that stays connected, fed with command lines: to start one and let it connect takes longer than what it is
// asked for, and a guest may be frozen meanwhile. What it prints is cut into answers here; what they mean is virsh.ts's.
// virsh (9.0, with readline) writes its prompt, then the line it was given, then the answer; errors too, in their place,
// since it flushes one stream before it writes to the other.
import { randomBytes } from 'node:crypto';
import type { Readable, Writable } from 'node:stream';
import { execa } from 'execa';
import { withLimit } from '../../../deadline.js';
import { BridgeError, UsageError } from '../../../errors.js';

const PROMPT = 'virsh # ';

/** The process ended instead of answering: `words` are its last. */
export class VirshEnded extends BridgeError {
  readonly words: string;

  constructor(words: string) {
    super('E_LIBVIRT', `virsh ended: ${words}`, { outcome: 'unknown' });
    this.words = words;
  }
}

export class VirshShell {
  readonly #input: Writable;
  readonly #kill: () => void;
  #buffer = '';
  #waiting: { readonly end: string; resolve(text: string): void; reject(error: Error): void } | undefined;
  #ended = false;

  /** Starts virsh; it connects when it is first asked. */
  constructor(uri: string | undefined) {
    const connect = uri === undefined ? [] : ['--connect', uri];
    const shell = execa('sh', ['-c', 'exec virsh "$@" 2>&1', 'sh', '--quiet', ...connect], {
      reject: false,
      buffer: false,
      stdin: 'pipe',
      stdout: 'pipe',
      stderr: 'ignore',
      // Out of the reach of a terminal's Ctrl-C: the thaw goes through it. It ends with its input.
      detached: true,
      env: {
        LC_ALL: 'C.UTF-8',
        TERM: 'dumb',
        VIRSH_DEBUG: undefined,
        LIBVIRT_DEBUG: undefined,
        // It would write our lines into its user's history when it ends.
        XDG_CACHE_HOME: '/dev/null',
      },
    });
    const output: Readable = shell.stdout;
    output.setEncoding('utf8');
    output.on('data', (text: string) => {
      this.#buffer += text;
      this.#answer();
    });
    this.#input = shell.stdin;
    // A line written to one that has just ended: its end says so.
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
    const token = randomBytes(9).toString('hex');
    const line = words.map(quoted).join(' ');
    const answer = new Promise<string>((resolve, reject) => {
      this.#waiting = { end: `${PROMPT}echo ${token}\n${token}${PROMPT}`, resolve, reject };
    });
    answer.catch(() => undefined);
    if (this.#ended) throw new VirshEnded('it is not there any more');
    this.#input.write(`${line}\necho ${token}\n`);
    return await withLimit(`virsh ${words[0] ?? ''}`, timeoutMs, answer, 'unknown');
  }

  /** Ends it, whatever it is doing; what it asked libvirt for may go on. */
  close(): void {
    this.#input.end();
    if (this.#waiting !== undefined) this.#kill();
  }

  #answer(): void {
    const at = this.#waiting === undefined ? -1 : this.#buffer.indexOf(this.#waiting.end);
    if (this.#waiting === undefined || at === -1) return;
    const text = this.#buffer.slice(0, at);
    this.#buffer = '';
    // The line it was given comes first; a long one is shown in part, but always as one line.
    this.#waiting.resolve(text.slice(text.indexOf('\n') + 1));
    this.#waiting = undefined;
  }
}

/** As virsh's own parser takes words: within single quotes everything but a single quote stands for itself. */
function quoted(word: string): string {
  if (/[\r\n\0]/.test(word)) {
    throw new UsageError('E_NAME', `libvirt: a name or path with a line break cannot be used: ${JSON.stringify(word)}`);
  }
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
