// Starts and keeps the processes of guest-exec, each in a session of its own. Their output is read as it comes: no
// child stops for want of a reader, and none holds up the agent. It goes through FIFOs that have a name for a moment
// only: Node's own pipes are sockets, which a child cannot open again as /dev/stdout. Children outlive the agent.
import { closeSync, constants as fsConstants, mkdirSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { defined } from '../defined.js';
import { resetOomScore } from '../linux/process-group.js';
import type { CaptureMode } from '../qga/commands-exec.js';
import { refuse } from '../qga/server.js';
import { errnoText } from './errno-text.js';
import { Capture, execLimits, type Captured } from './exec-capture.js';
import type { RunProgram } from './program.js';
import { LOOK_LIMIT_MS } from './kernel-files.js';

export interface ExecRequest {
  readonly path: string;
  readonly args: readonly string[];
  /** `NAME=VALUE`. If given, it is the whole environment. */
  readonly env?: readonly string[];
  readonly input?: Uint8Array;
  readonly capture: CaptureMode;
}

export type ExecStatus =
  | { readonly exited: false }
  | {
      readonly exited: true;
      readonly exitCode?: number;
      readonly signal?: number;
      readonly out: Captured;
      readonly err: Captured;
    };

/** The program could not be started. The message is GLib's. */
export class NotStartedError extends Error {
  constructor(path: string, cause: unknown) {
    super(`Failed to execute child process \u201C${path}\u201D (${errnoText(cause)})`, { cause });
    this.name = 'NotStartedError';
  }
}

interface Child {
  readonly out: Capture;
  readonly err: Capture;
  end?: { readonly exitCode?: number; readonly signal?: number };
}

export class ExecChildren {
  readonly #runtimeDir: string;
  readonly #run: RunProgram;
  /** In the order of their starts. */
  readonly #children = new Map<number, Child>();
  readonly #budget = { left: execLimits.totalBytes };
  #serial = 0;
  #starting = 0;

  constructor({ runtimeDir, run }: { readonly runtimeDir: string; readonly run: RunProgram }) {
    this.#runtimeDir = runtimeDir;
    this.#run = run;
  }

  /** Gives the process id. Throws NotStartedError, and a RemoteError at the limit. */
  async start(request: ExecRequest): Promise<number> {
    const running = [...this.#children.values()].filter((child) => !hasEnded(child)).length + this.#starting;
    if (running >= execLimits.running) {
      refuse(`${execLimits.running} programs are running, which is the limit: wait for one to end`);
    }
    this.#starting++;
    try {
      return await this.#start(request);
    } finally {
      this.#starting--;
    }
  }

  /** Undefined if there is no such child. One that has ended is forgotten with this answer. */
  status(pid: number): ExecStatus | undefined {
    const child = this.#children.get(pid);
    if (child === undefined) return undefined;
    if (child.end === undefined || !hasEnded(child)) return { exited: false };
    this.#children.delete(pid);
    return { exited: true, ...child.end, out: child.out.take(), err: child.err.take() };
  }

  async #start({ path, args, env, input, capture }: ExecRequest): Promise<number> {
    const pipes = await this.#pipes(capture);
    const stdin = input === undefined ? undefined : this.#inputFile(input);
    try {
      const child = execa(path, [...args], {
        stdio: [fdOrNothing(stdin), fdOrNothing(pipes.out.writer), fdOrNothing(pipes.err.writer)],
        ...(env === undefined ? {} : { env: environment(env), extendEnv: false }),
        detached: true,
        cleanup: false,
        reject: false,
        buffer: false,
      });
      const { pid } = child;
      if (pid === undefined) throw new NotStartedError(path, (await child).cause);
      const entry: Child = { out: pipes.out.capture, err: pipes.err.capture };
      this.#children.delete(pid);
      this.#children.set(pid, entry);
      void child.then(({ exitCode, signal }) => {
        entry.end = {
          ...defined({ exitCode }),
          ...(signal === undefined ? {} : { signal: constants.signals[signal] }),
        };
        this.#forgetOldest();
      });
      resetOomScore(pid);
      return pid;
    } catch (error) {
      pipes.out.capture.take();
      pipes.err.capture.take();
      if (error instanceof NotStartedError) throw error;
      throw new NotStartedError(path, error);
    } finally {
      for (const fd of new Set([stdin, pipes.out.writer, pipes.err.writer])) if (fd !== undefined) closeSync(fd);
    }
  }

  async #pipes(mode: CaptureMode): Promise<{ readonly out: Pipe; readonly err: Pipe }> {
    const none = (): Pipe => ({ capture: new Capture(this.#budget), writer: undefined });
    const wantsOut = mode === 'stdout' || mode === 'separated' || mode === 'merged';
    const wantsErr = mode === 'stderr' || mode === 'separated';
    const paths = [wantsOut, wantsErr].map((wanted) => (wanted ? this.#path('out') : undefined));
    const wanted = paths.filter((path) => path !== undefined);
    try {
      if (wanted.length > 0) await this.#makeFifos(wanted);
      const [out, err] = paths.map((path) => (path === undefined ? none() : this.#openPipe(path)));
      if (out === undefined || err === undefined) throw new Error('two paths give two pipes');
      return mode === 'merged' ? { out, err: { ...err, writer: out.writer } } : { out, err };
    } finally {
      for (const path of wanted) rmSync(path, { force: true });
    }
  }

  async #makeFifos(paths: readonly string[]): Promise<void> {
    const args = ['--mode=0600', ...paths];
    const { exitCode, output } = await this.#run('mkfifo', args, { limitMs: LOOK_LIMIT_MS });
    if (exitCode !== 0) refuse(`cannot make pipes for the output: ${output.trim()}`);
  }

  #openPipe(path: string): Pipe {
    const { O_RDONLY, O_WRONLY, O_NONBLOCK } = fsConstants;
    const reader = openSync(path, O_RDONLY | O_NONBLOCK);
    try {
      // This does not wait, since there is a reader. The child's writes wait for it as in any pipe.
      const writer = openSync(path, O_WRONLY);
      return { writer, capture: new Capture(this.#budget, reader) };
    } catch (error) {
      closeSync(reader);
      throw error;
    }
  }

  /** A file on tmpfs without a name, which the child alone is to have: it may read it when and how it likes. */
  #inputFile(bytes: Uint8Array): number {
    const path = this.#path('in');
    try {
      writeFileSync(path, bytes, { mode: 0o600, flag: 'wx' });
      return openSync(path, fsConstants.O_RDONLY);
    } finally {
      rmSync(path, { force: true });
    }
  }

  #path(end: string): string {
    mkdirSync(this.#runtimeDir, { recursive: true, mode: 0o755 });
    return join(this.#runtimeDir, `exec-${process.pid}-${++this.#serial}.${end}`);
  }

  #forgetOldest(): void {
    const ended = [...this.#children].filter(([, child]) => hasEnded(child));
    for (const [pid, child] of ended.slice(0, Math.max(0, ended.length - execLimits.ended))) {
      this.#children.delete(pid);
      child.out.take();
      child.err.take();
    }
  }
}

// execa's types know descriptors up to 9; spawn(2) takes any.
const fdOrNothing = (fd: number | undefined): 3 | 'ignore' => (fd === undefined ? 'ignore' : (fd as 3));

// As with qemu-ga, a process in the background that keeps the output open is waited for.
const hasEnded = ({ end, out, err }: Child): boolean => end !== undefined && out.closed && err.closed;

interface Pipe {
  readonly capture: Capture;
  /** The child's end, to be closed here once the child has it. */
  readonly writer: number | undefined;
}

function environment(entries: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    entries.flatMap((entry) => {
      const equals = entry.indexOf('=');
      return equals < 1 ? [] : [[entry.slice(0, equals), entry.slice(equals + 1)]];
    }),
  );
}
