// Speaks with a resident writer: one process from prepare to thaw, which holds while its standard input is open and
// lets go when that closes, whoever closes it: the kernel does when the agent dies. It is asked line by line on
// standard input and answers each line with one, `ok` or `error REASON`. Anything else it does ends it, as its time
// limit does. Manual: fsfreeze-hook.d/README.md. When it is asked: phase-runner.ts.
import { execa } from 'execa';
import { once } from 'node:events';
import { defined } from '../../defined.js';
import { monotonicMs } from '../../linux/clock.js';
import { AbortWait, Timer } from '../../deadline.js';
import { endGroup, killGroup, resetOomScore } from '../../linux/process-group.js';
import { processStat, stillRuns } from '../../linux/process-stat.js';
import { FLOOD_CHECK_MS, harmlessLine, WriterOutput } from './output.js';
import { noEvents, exitOf, FLOOD_FAULT, type Exit, type ProcessRequest, type ProcessResult } from './process.js';

/** Between the end of its standard input and SIGTERM. */
const LET_GO_MS = 1_000;
/** For the last words of a resident that ended while it was asked. */
const LAST_WORDS_MS = 50;
/** An answer is no longer. */
const LINE_CHARACTERS = 4_096;

export type ResidentRequest = Omit<ProcessRequest, 'limitMs' | 'left' | 'onFlood'> & {
  /** Called once at most, if it ends or breaks a rule when nobody asks it and it was not told to end. */
  readonly onLost: (reason: string) => void;
};

type Ending = Exit | 'stays';

export class ResidentWriter {
  readonly #request: ResidentRequest;
  readonly #output: WriterOutput;
  readonly #child: ReturnType<typeof start>;
  readonly #exit: Promise<Exit>;
  readonly #startTime: string;
  readonly #watcher: NodeJS.Timeout;
  #exited: Exit | undefined;
  /** How it broke a rule: nothing that it says counts any more. */
  #fault: string | undefined;
  #toldToEnd = false;
  #killing: Promise<Ending> | undefined;
  #line = '';
  /** Takes the answer to the question that is open. */
  #hear: ((heard: { readonly line: string } | 'fault') => void) | undefined;

  /** Starts it. Never throws: a program that could not be started says so when it is asked. */
  constructor(request: ResidentRequest) {
    this.#request = request;
    this.#output = new WriterOutput(request.outputDir, request.label);
    this.#child = start(request, this.#output);
    const { pid, stdin, stdout } = this.#child;
    if (pid !== undefined) request.onStart?.(pid);
    this.#startTime = pid === undefined ? '' : (processStat(pid)?.startTime ?? '');
    stdin.on('error', () => {
      void this.#onDeaf();
    });
    stdout.on('error', () => undefined);
    stdout.setEncoding('utf8');
    stdout.on('data', (text: string) => {
      this.#read(text);
    });
    this.#watcher = setInterval(() => {
      if (this.#output.keepSmall()) this.#breakRule(FLOOD_FAULT);
    }, FLOOD_CHECK_MS).unref();
    this.#exit = this.#watchExit();
  }

  /**
   * Writes the line and waits for the answer. Never throws. At the limit and when aborted it is ended: its late answer
   * would be taken for the one to the next question. One question at a time.
   */
  async ask(question: string, limitMs: number, signal?: AbortSignal): Promise<ProcessResult> {
    const startMs = monotonicMs();
    const facts = await this.#answer(question, limitMs, signal);
    return { ...noEvents, ...facts, startMs, endMs: monotonicMs() };
  }

  /** Closes its standard input, and ends the process if that does not. Never throws. True if it is gone then. */
  async end(): Promise<boolean> {
    this.#toldToEnd = true;
    this.#child.stdin.end();
    const timer = new Timer();
    const first = await Promise.race([this.#exit, timer.after(LET_GO_MS, 'stays' as const)]);
    timer.clear();
    if (first === 'stays') await this.#kill();
    return this.#exited !== undefined;
  }

  async #answer(question: string, limitMs: number, signal: AbortSignal | undefined): Promise<Partial<ProcessResult>> {
    if (this.#fault !== undefined) return await this.#faulty();
    if (this.#exited !== undefined) return this.#ended(this.#exited);
    const limit = new Timer();
    const abort = new AbortWait(signal);
    const heard = new Promise<{ readonly line: string } | 'fault'>((resolve) => {
      this.#hear = resolve;
    });
    try {
      if (signal?.aborted !== true) this.#child.stdin.write(`${question}\n`);
      const ended = this.#exit.then((exit) => ({ exit }));
      const first = await Promise.race([heard, abort.aborted, ended, limit.after(limitMs, 'timedOut' as const)]);
      if (first === 'fault') return await this.#faulty();
      if (typeof first !== 'string') return 'line' in first ? await this.#judge(first.line) : this.#ended(first.exit);
      return { ...exitFacts(await this.#kill()), [first]: true };
    } finally {
      this.#hear = undefined;
      limit.clear();
      abort.clear();
    }
  }

  async #judge(line: string): Promise<Partial<ProcessResult>> {
    const error = /^error(?:\s+(.*))?$/.exec(line);
    if (error !== null) return { answer: 'error', text: harmlessLine(error[1]?.trim() ?? '') };
    if (line !== 'ok') this.#breakRule(`answered ${quoted(line)}, expected "ok" or "error REASON"`);
    // More than one line may have come at once.
    if (this.#fault !== undefined) return await this.#faulty();
    const { pid } = this.#child;
    if (pid !== undefined && stillRuns({ pid, startTime: this.#startTime })) return { answer: 'ok' };
    // The resident has ended: what a process that outlived it says in its name counts for nothing.
    await this.#kill();
    return this.#ended(this.#exited ?? {});
  }

  async #faulty(): Promise<Partial<ProcessResult>> {
    const facts = exitFacts(await this.#kill());
    const text = this.#output.firstLine();
    return { ...facts, fault: this.#fault ?? 'unknown', ...defined({ text }) };
  }

  #ended({ fault, ...exit }: Exit): Partial<ProcessResult> {
    const how = exit.signal === undefined ? `exit ${exit.exitCode ?? 'unknown'}` : `by ${exit.signal}`;
    const text = this.#output.firstLine();
    return { ...exit, fault: fault ?? `its process ended (${how})`, ...defined({ text }) };
  }

  #read(text: string): void {
    this.#line += text;
    for (let end = this.#line.indexOf('\n'); end >= 0; end = this.#line.indexOf('\n')) {
      const line = this.#line.slice(0, end).replace(/\r$/, '');
      this.#line = this.#line.slice(end + 1);
      const hear = this.#hear;
      this.#hear = undefined;
      if (hear === undefined) {
        this.#breakRule(`spoke without being asked: ${quoted(line)}`);
        return;
      }
      hear({ line });
    }
    if (this.#line.length > LINE_CHARACTERS)
      this.#breakRule(`answered more than ${LINE_CHARACTERS} characters on one line`);
  }

  #breakRule(fault: string): void {
    if (this.#fault !== undefined || this.#toldToEnd || this.#exited !== undefined) return;
    this.#fault = fault;
    void this.#kill();
    if (this.#hear === undefined) this.#request.onLost(fault);
    else this.#hear('fault');
  }

  // It cannot be asked any more. If that is because it ended, its end says more.
  async #onDeaf(): Promise<void> {
    const timer = new Timer();
    const first = await Promise.race([this.#exit, timer.after(LAST_WORDS_MS, 'stays' as const)]);
    timer.clear();
    if (first === 'stays') this.#breakRule('closed its standard input');
  }

  async #kill(): Promise<Ending> {
    this.#toldToEnd = true;
    this.#child.stdout.destroy();
    this.#killing ??= endGroup(this.#child.pid, this.#exit);
    return await this.#killing;
  }

  // Waits for the process alone: a daemon may keep its output open for ever, and execa would wait for that.
  async #watchExit(): Promise<Exit> {
    const child = this.#child;
    const ended = new Promise<Exit>((resolve) => {
      child.once('exit', (exitCode, signal) => {
        resolve({ ...(exitCode === null ? {} : { exitCode }), ...(signal === null ? {} : { signal }) });
      });
    });
    const exit = await Promise.race([ended, child.then(exitOf)]);
    // Processes that it left behind hold nothing that we know of.
    killGroup(child.pid, 'SIGKILL');
    const wasAsked = this.#hear !== undefined;
    if (wasAsked && !child.stdout.destroyed && !child.stdout.readableEnded)
      await once(child.stdout, 'end', { signal: AbortSignal.timeout(LAST_WORDS_MS) }).catch(() => undefined);
    this.#exited = exit;
    clearInterval(this.#watcher);
    child.stdin.destroy();
    child.stdout.destroy();
    if (!this.#toldToEnd && !wasAsked) {
      const { fault = '', text } = this.#ended(exit);
      this.#request.onLost(text === undefined ? fault : `${fault}: ${text}`);
    }
    return exit;
  }

  /** To be called once it is gone and nobody asks any more. */
  close(): void {
    clearInterval(this.#watcher);
    this.#output.close();
  }
}

function start(request: ResidentRequest, output: WriterOutput) {
  const child = execa(request.file, [...request.args], {
    env: { ...request.env },
    extendEnv: false,
    cwd: '/',
    // Node opens its own ends close-on-exec: nobody else keeps its standard input open.
    stdio: ['pipe', 'pipe', output.err as 3],
    detached: true,
    cleanup: false,
    reject: false,
    buffer: false,
  });
  resetOomScore(child.pid);
  return child;
}

function exitFacts(ending: Ending): Partial<ProcessResult> {
  if (ending === 'stays') return { unkillable: true };
  const { exitCode, signal } = ending;
  return { ...defined({ exitCode, signal }) };
}

function quoted(line: string): string {
  return `"${harmlessLine(line.slice(0, 100))}"`;
}
