// Speaks with a writer through one process from prepare to thaw. Its hold ends with its process, or at most `lingers`
// seconds later: then its end proves that it has let go, whatever it answered. The process: resident.ts.
import { defined } from '../../defined.js';
import type { WriterPhase } from '../../consistency.js';
import { monotonicMs } from '../../linux/clock.js';
import type { Heard } from './conversation.js';
import { noEvents, type Answer, type Peer, type SessionOutcome } from './peer.js';
import { howEnded, ResidentProcess, type Ending, type ResidentRequest } from './resident.js';

/** What it is started with, or why it is not. */
type MakeRequest = () => ResidentRequest | { readonly fault: string };

export class ResidentPeer implements Peer {
  readonly #makeRequest: MakeRequest;
  readonly #lingersMs: number;
  #process: ResidentProcess | { readonly fault: string } = { fault: 'it was never started' };

  constructor(makeRequest: MakeRequest, lingersMs: number) {
    this.#makeRequest = makeRequest;
    this.#lingersMs = lingersMs;
  }

  get isGone(): boolean {
    const process = this.#process;
    return !(process instanceof ResidentProcess) || process.toldToEnd || process.exited !== undefined;
  }

  begin(): void {
    const request = this.#makeRequest();
    this.#process = 'fault' in request ? request : new ResidentProcess(request);
  }

  async ask(
    phase: WriterPhase,
    outcome: SessionOutcome | undefined,
    limitMs: number,
    signal?: AbortSignal,
  ): Promise<Answer> {
    const startMs = monotonicMs();
    const process = this.#process;
    const facts =
      process instanceof ResidentProcess
        ? await this.#askProcess(process, phase, outcome, limitMs, signal)
        : { fault: process.fault };
    return { ...noEvents, ...facts, startMs, endMs: monotonicMs() };
  }

  async #askProcess(
    process: ResidentProcess,
    phase: WriterPhase,
    outcome: SessionOutcome | undefined,
    limitMs: number,
    signal: AbortSignal | undefined,
  ): Promise<Partial<Answer>> {
    const { conversation } = process;
    const heard = await conversation.ask(outcome === undefined ? phase : `${phase} ${outcome}`, limitMs, signal);
    // A daemon that outlived the resident has its output and can answer in its name, and the end of a child is told only
    // when the loop comes to it. So an `ok` counts only if the resident itself still runs after it was read: the kernel
    // is asked, by a file that was opened for this process. With `thaw` it does not matter: its end lets go as well.
    if (heard === 'ok' && phase !== 'thaw' && phase !== 'post' && !process.runs) {
      await process.kill();
      return ended(process);
    }
    return await facts(process, heard);
  }

  async end(): Promise<boolean> {
    const process = this.#process;
    if (!(process instanceof ResidentProcess)) return true;
    return (await process.end()) && (process.goneForMs ?? 0) >= this.#lingersMs;
  }

  close(): void {
    if (this.#process instanceof ResidentProcess) this.#process.close();
  }
}

async function facts(process: ResidentProcess, heard: Heard): Promise<Partial<Answer>> {
  if (typeof heard !== 'string') return { answer: 'error', text: heard.error };
  switch (heard) {
    case 'ok':
      return { answer: 'ok' };
    // At the limit and when aborted it is ended: its late answer would be taken for the one to the next question.
    case 'timedOut':
    case 'aborted':
      return { ...exitFacts(await process.kill()), [heard]: true };
    // How it ended then is our doing: an exit code of it is no answer.
    case 'fault':
      return {
        ...((await process.kill()) === 'stays' ? { unkillable: true } : {}),
        fault: process.conversation.fault ?? 'unknown',
        ...defined({ text: process.lastWords }),
      };
    case 'over':
      return process.exited === undefined ? { unkillable: true } : ended(process);
  }
}

function ended(process: ResidentProcess): Partial<Answer> {
  const { fault, ...exit } = process.exited ?? {};
  return { ...exit, fault: fault ?? howEnded(exit), ...defined({ text: process.lastWords }) };
}

function exitFacts(ending: Ending): Partial<Answer> {
  if (ending === 'stays') return { unkillable: true };
  const { exitCode, signal } = ending;
  return defined({ exitCode, signal });
}
