// An `lvm` that is started before anything is held and fed by lines, so that a cut forks nothing and loads nothing. It
// tells no exit codes: what became of a command is looked up afterwards, and its words are kept for people.
import { execa } from 'execa';
import { withLimit } from '../../deadline.js';
import { CutError } from '../../errors.js';
import { processNote } from '../journal.js';
import { SEARCH_PATH } from '../program.js';
import { LVM_CONFIG } from './lvm.js';

/** Suspending a device waits for what is being written to it. */
const COMMAND_LIMIT_MS = 30_000;
const KEPT_CHARACTERS = 4_000;

/** LVM has no such command, says so by its name, and has ended the one before when it does. */
const MARKER = 'fsb-done';

export class LvmShell implements AsyncDisposable {
  readonly #child = spawnShell();
  #said = '';
  #commands = 0;
  #onSaid: () => void = () => undefined;
  #ended: string | undefined;

  private constructor() {
    for (const stream of [this.#child.stdout, this.#child.stderr])
      stream.on('data', (data: Buffer) => {
        this.#said = (this.#said + data.toString()).slice(-KEPT_CHARACTERS);
        this.#onSaid();
      });
    // A pipe that closed is told by the end of the process.
    this.#child.stdin.on('error', () => undefined);
    void this.#child.then(({ exitCode, originalMessage }) => {
      this.#ended = originalMessage ?? `exit code ${exitCode ?? 'unknown'}`;
      this.#onSaid();
    });
  }

  readonly process = processNote(this.#child.pid ?? 0);

  /** Starts it, and has it read all that a command reads: configuration, devices, metadata. Throws a CutError. */
  static async start(): Promise<LvmShell> {
    const shell = new LvmShell();
    await shell.do(`lvs --config "${LVM_CONFIG}"`);
    return shell;
  }

  /** One command, to its end. Gives what it said. Throws a CutError if the shell is gone, or does not answer in time. */
  async do(command: string): Promise<string> {
    const marker = `${MARKER}.${++this.#commands}`;
    this.#said = '';
    const done = new Promise<void>((resolve, reject) => {
      this.#onSaid = () => {
        if (this.#said.includes(`'${marker}'`)) resolve();
        else if (this.#ended !== undefined) reject(new CutError('E_PROVIDER', `the lvm shell ended: ${this.#ended}`));
      };
    });
    this.#onSaid();
    this.#child.stdin.write(`${command}\n${marker}\n`);
    await withLimit(`lvm ${command}`, COMMAND_LIMIT_MS, done, 'unknown');
    return this.#said
      .split('\n')
      .map((line) => line.trim())
      .filter((line) => line !== '' && !line.includes(marker) && !line.startsWith('WARNING:'))
      .join('; ');
  }

  /** Ends it once what it does is done. Never throws. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin.end();
    await this.#child;
  }
}

/** What it says when we are gone must not end it in the middle of a section. */
const SCRIPT = 'trap "" PIPE; exec lvm';

function spawnShell() {
  return execa('/bin/sh', ['-c', SCRIPT], {
    stdin: 'pipe',
    stdout: 'pipe',
    stderr: 'pipe',
    env: { LC_ALL: 'C', PATH: SEARCH_PATH },
    buffer: false,
    reject: false,
    // A section that was begun must come to its end, whatever becomes of us.
    detached: true,
    cleanup: false,
  });
}
