// A shipped resident writer, asked by hand as the agent asks it: line by line, each answered in its turn.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

export class ResidentHook implements AsyncDisposable {
  /** What the writer leaves behind while it runs. */
  readonly scratch = mkdtempSync('/dev/shm/fsb-hook-');
  readonly #process: ChildProcess;
  readonly #ended: Promise<unknown>;
  readonly #lines: AsyncIterator<string>;

  /** @param words program and arguments: the hook, or a shell and the hook */
  constructor(words: readonly string[], environment: Readonly<Record<string, string>>) {
    const [program = '', ...rest] = words;
    this.#process = spawn(program, [...rest, 'resident'], {
      cwd: '/',
      env: { PATH: process.env['PATH'], HOME: '/nonexistent', FSFREEZE_SCRATCH: this.scratch, ...environment },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const { stdin, stdout } = this.#process;
    if (stdin === null || stdout === null) throw new Error('no pipes');
    stdin.on('error', () => undefined);
    this.#ended = once(this.#process, 'exit');
    this.#lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
  }

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  /** The clients that it has started. */
  get clients(): number[] {
    return readFileSync(`/proc/${this.pid}/task/${this.pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
  }

  /** Memory that is its own alone, and that of each client, in KiB (proc_pid_smaps(5)). */
  dirtyKib(): number[] {
    return [this.pid, ...this.clients].map((pid) =>
      [...readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8').matchAll(/^Private_Dirty:\s+(\d+)/gm)].reduce(
        (sum, [, kib]) => sum + Number(kib),
        0,
      ),
    );
  }

  /** Its answer, or how it ended instead. */
  async ask(question: string): Promise<string> {
    this.#process.stdin?.write(`${question}\n`);
    const line = await this.#lines.next();
    if (line.done !== true) return line.value;
    await this.#ended;
    return `ended: ${this.#process.exitCode ?? this.#process.signalCode ?? 'unknown'}`;
  }

  /** All that it left in its folder of artefacts. */
  artefacts(): Record<string, string> {
    const folder = join(this.scratch, 'artefacts');
    return Object.fromEntries(readdirSync(folder).map((name) => [name, readFileSync(join(folder, name), 'utf8')]));
  }

  /** It alone, as nothing else could: what it started is left to see the end of its input. */
  async kill(): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.#ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.stdin?.end();
    await this.#ended;
    rmSync(this.scratch, { recursive: true, force: true });
  }
}
