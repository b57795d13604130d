// An `lvm` that is started before anything is held and fed by lines, so that a cut forks nothing and loads nothing. It
// tells no exit codes: what became of a command is looked up afterwards, and its words are kept for people.
import { execa } from 'execa';
import { withLimit } from '../../deadline.js';
import { CutError } from '../../errors.js';
import { goFirst } from '../go-first.js';
import { processNote } from '../journal.js';
import { endedWithin, SEARCH_PATH } from '../program.js';
import { LVM_CONFIG } from './lvm.js';

/** Suspending a device waits for what is being written to it. Less than a section lasts: what is left of that is the way back. */
const CUT_LIMIT_MS = 20_000;
/** While applications run. */
const ARM_LIMIT_MS = 60_000;
const KEPT_CHARACTERS = 4_000;

/** LVM has no such command, says so by its name, and has ended the one before when it does. */
const MARKER = 'fsb-done';

export class LvmShell {
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

  #reading: Promise<string> | undefined;

  /** One that cannot be started is told of by its first command. */
  static start(): LvmShell {
    return new LvmShell();
  }

  /** Has it read all that a command reads: program, configuration, devices, metadata. Throws as arm() does. */
  async read(): Promise<void> {
    await (this.#reading ??= this.arm('lvs'));
  }

  /**
   * A command while applications run, to its end. Gives what it said. Throws a CutError if the shell is gone, a
   * DeadlineError if it does not answer within a minute.
   */
  async arm(command: string, ...words: readonly string[]): Promise<string> {
    return await this.#do(lineOf(command, words), ARM_LIMIT_MS);
  }

  /** The command that cuts: as arm(), within 20 s, and nobody waits for udev. */
  async cut(command: string, ...words: readonly string[]): Promise<string> {
    // It ends after the cuts, and is not put back.
    goFirst(this.process.pid);
    return await this.#do(lineOf(command, ['--noudevsync', ...words]), CUT_LIMIT_MS);
  }

  async #do(line: string, limitMs: number): Promise<string> {
    const marker = `${MARKER}.${++this.#commands}`;
    this.#said = '';
    const done = new Promise<void>((resolve, reject) => {
      this.#onSaid = () => {
        if (this.#said.includes(`'${marker}'`)) resolve();
        else if (this.#ended !== undefined) reject(new CutError('E_PROVIDER', `the lvm shell ended: ${this.#ended}`));
      };
    });
    this.#onSaid();
    this.#child.stdin.write(`${line}\n${marker}\n`);
    await withLimit(`lvm ${line}`, limitMs, done, 'unknown');
    return this.#said
      .split('\n')
      .map((line) => line.trim())
      .filter((line) => line !== '' && !line.includes(marker) && !line.startsWith('WARNING:'))
      .join('; ');
  }

  /**
   * Ends it once what it does is done, and never in the middle of that. Gives whether it has ended within `limitMs`; if
   * not, it ends later by itself, and keeps nobody waiting. May be called again. Never throws.
   */
  async end(limitMs: number): Promise<boolean> {
    this.#child.stdin.end();
    return (await endedWithin(limitMs, this.#child)) !== undefined;
  }
}

function lineOf(command: string, words: readonly string[]): string {
  return [command, '--config', `"${LVM_CONFIG}"`, ...words].join(' ');
}

/** Nothing can be made below it. */
const NO_HOME = '/dev/null';

/** What it says when we are gone must not end it in the middle of a section. */
const SCRIPT = 'trap "" PIPE; exec lvm';

function spawnShell() {
  return execa('/bin/sh', ['-c', SCRIPT], {
    stdin: 'pipe',
    stdout: 'pipe',
    stderr: 'pipe',
    // It writes its history below HOME after each command, and what lies there may be frozen.
    env: { LC_ALL: 'C', PATH: SEARCH_PATH, HOME: NO_HOME },
    buffer: false,
    reject: false,
    // A section that was begun must come to its end, whatever becomes of us.
    detached: true,
    cleanup: false,
  });
}
