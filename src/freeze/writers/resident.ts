// Runs the process of a resident writer, which holds while its standard input is open and lets go when that closes,
// whoever closes it: the kernel does when the agent dies. How it is spoken with: conversation.ts. What it is asked, and
// what its answers mean for the session: resident-peer.ts.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { defined } from '../../defined.js';
import { Timer } from '../../deadline.js';
import { describeError } from '../../errors.js';
import { monotonicMs } from '../../linux/clock.js';
import { endGroup, killGroup, resetOomScore } from '../../linux/process-group.js';
import { OpenProcessStat } from '../../linux/process-stat.js';
import { Conversation } from './conversation.js';
import { WriterOutput } from './output.js';
import { FLOOD_FAULT, type Exit, type ProcessRequest } from './process.js';

/** Between the end of its standard input and SIGTERM. */
const LET_GO_MS = 1_000;
/** For the last words of a resident that ended while it was asked. */
const LAST_WORDS_MS = 50;

export type ResidentRequest = Omit<ProcessRequest, 'limitMs' | 'onFlood'> & {
  /** Called once at most, if it ends or breaks a rule when nobody asks it and it was not told to end. */
  readonly onLost: (reason: string) => void;
};

/** How the process ended; `stays` if SIGKILL did not end it in time. */
export type Ending = Exit | 'stays';

export class ResidentProcess {
  readonly conversation: Conversation;
  readonly #request: ResidentRequest;
  readonly #output: WriterOutput;
  readonly #child: ChildProcess | undefined;
  readonly #stat: OpenProcessStat | undefined;
  readonly #exit: Promise<Exit>;
  #exited: { readonly exit: Exit; readonly atMs: number } | undefined;
  #toldToEnd = false;
  #killing: Promise<Ending> | undefined;
  #lastWords: string | undefined;
  #isClosed = false;

  /** Starts it. Never throws: one that could not be started has ended, and its exit says why. */
  constructor(request: ResidentRequest) {
    this.#request = request;
    this.#output = new WriterOutput(request.outputDir, request.label, false);
    this.conversation = new Conversation(
      (line) => {
        this.#child?.stdin?.write(line);
      },
      (fault, wasAsked) => {
        void this.kill();
        if (!wasAsked) request.onLost(fault);
      },
    );
    const started = start(request, this.#output);
    if (!(started instanceof Error)) this.#child = started;
    const pid = this.#child?.pid;
    if (pid !== undefined) {
      resetOomScore(pid);
      this.#stat = new OpenProcessStat(pid);
      request.onStart?.(pid, this.#stat.startTime);
    }
    this.#listen();
    request.watch.add(this.#output, () => {
      this.conversation.break(FLOOD_FAULT);
    });
    this.#exit = started instanceof Error ? this.#onExit(cannotStart(started)) : this.#watchExit(started);
  }

  /** How it ended; undefined while it runs, as far as was told. */
  get exited(): Exit | undefined {
    return this.#exited?.exit;
  }

  /** Milliseconds since it ended; undefined if it has not. */
  get goneForMs(): number | undefined {
    return this.#exited === undefined ? undefined : monotonicMs() - this.#exited.atMs;
  }

  /** It has not ended, whether its end was told yet or not. */
  get runs(): boolean {
    return this.#exited === undefined && this.#stat?.runs === true;
  }

  /** It was told to end, and should not be spoken with any more. */
  get toldToEnd(): boolean {
    return this.#toldToEnd;
  }

  /** The first line of its standard error. */
  get lastWords(): string | undefined {
    return this.#isClosed ? this.#lastWords : (this.#lastWords ??= this.#output.firstLine());
  }

  /** Closes its standard input, and ends the process if that does not. Never throws. True if it is gone then. */
  async end(): Promise<boolean> {
    this.#beToldToEnd();
    this.#child?.stdin?.end();
    const timer = new Timer();
    const first = await Promise.race([this.#exit, timer.after(LET_GO_MS, 'stays' as const)]);
    timer.clear();
    if (first === 'stays') await this.kill();
    return this.#exited !== undefined;
  }

  async kill(): Promise<Ending> {
    this.#beToldToEnd();
    this.#child?.stdout?.destroy();
    this.#killing ??= endGroup(this.#child?.pid, this.#exit);
    return await this.#killing;
  }

  /** To be called once it is gone and nobody asks any more. */
  close(): void {
    if (this.#isClosed) return;
    this.#request.watch.remove(this.#output);
    // It may be asked for again, long after, should it not have let go.
    this.#lastWords = this.lastWords;
    this.#isClosed = true;
    this.#output.close();
    this.#stat?.close();
  }

  #beToldToEnd(): void {
    this.#toldToEnd = true;
    this.conversation.over();
  }

  #listen(): void {
    const { stdin, stdout } = this.#child ?? {};
    stdin?.on('error', () => {
      void this.#onDeaf();
    });
    stdout?.on('error', () => undefined);
    stdout?.setEncoding('utf8');
    stdout?.on('data', (text: string) => {
      this.conversation.hear(text);
    });
  }

  // It cannot be asked any more. If that is because it ended, its end says more.
  async #onDeaf(): Promise<void> {
    const timer = new Timer();
    const first = await Promise.race([this.#exit, timer.after(LAST_WORDS_MS, 'stays' as const)]);
    timer.clear();
    if (first === 'stays') this.conversation.break('closed its standard input');
  }

  // Waits for the process alone: a daemon may keep its output open for ever.
  async #watchExit(child: ChildProcess): Promise<Exit> {
    return await new Promise((resolve) => {
      child.once('exit', (exitCode, signal) => {
        resolve(this.#onExit(defined({ exitCode: exitCode ?? undefined, signal: signal ?? undefined })));
      });
      child.on('error', (error) => {
        if (child.pid === undefined) resolve(this.#onExit(cannotStart(error)));
      });
    });
  }

  async #onExit(exit: Exit): Promise<Exit> {
    const { pid, stdin, stdout } = this.#child ?? {};
    // Processes that it left behind hold nothing that we know of.
    killGroup(pid, 'SIGKILL');
    const wasAsked = this.conversation.isAsking;
    if (wasAsked && stdout !== undefined && stdout !== null && !stdout.destroyed && !stdout.readableEnded)
      await once(stdout, 'end', { signal: AbortSignal.timeout(LAST_WORDS_MS) }).catch(() => undefined);
    this.#exited = { exit, atMs: monotonicMs() };
    this.#request.watch.remove(this.#output);
    stdin?.destroy();
    stdout?.destroy();
    // One that could not be started says so when it is asked.
    const isLost = !this.#toldToEnd && !wasAsked && exit.fault === undefined;
    this.conversation.over();
    if (isLost) {
      const fault = howEnded(exit);
      this.#request.onLost(this.lastWords === undefined ? fault : `${fault}: ${this.lastWords}`);
    }
    return exit;
  }
}

/** For people. */
export function howEnded({ fault, exitCode, signal }: Exit): string {
  return fault ?? `its process ended (${signal === undefined ? `exit ${exitCode ?? 'unknown'}` : `by ${signal}`})`;
}

// By Node itself, not by execa as all other processes here: a hundred are started at a time while a requester waits, and
// what execa does around a process costs almost as much processor time again as its start (1.2 ms against 0.7).
function start({ file, args, env }: ResidentRequest, output: WriterOutput): ChildProcess | Error {
  try {
    return spawn(file, [...args], {
      env: { ...env },
      cwd: '/',
      // Node opens its own ends close-on-exec: nobody else keeps its standard input open.
      stdio: ['pipe', 'pipe', output.err],
      detached: true,
    });
  } catch (error) {
    return error instanceof Error ? error : new Error(describeError(error));
  }
}

function cannotStart(error: Error): Exit {
  return { fault: `cannot be started: ${error.message}` };
}
