// Requests to the freezer and its answers on one stream: which line answers which request, what comes unasked, and the
// end of the stream. Bounded, whatever is at the other end. The lines themselves: lines.ts; the verbs: client.ts.
import type { Duplex } from 'node:stream';
import { withLimit } from '../../deadline.js';
import { UnreachableError } from '../../errors.js';
import { parseFreezerLine, type FilesystemAnswer, type FreezerLine, type HungFilesystem } from './lines.js';

/**
 * The freezer's lines are 8192 bytes at most. What sends more, or more answers than it was asked for, is no freezer.
 */
const LINE_LIMIT_BYTES = 8_192;
/**
 * For each filesystem: five syncs, a late one, a freeze and some thaws; and for those that hang, which nobody counted.
 */
const ANSWERS_EACH = 16;
const ANSWERS_LEAST = 16_384;

export interface FreezerEvents {
  /** The lease ended; the freezer is thawing, unless a critical section lasts. */
  onExpired(): void;
  /** The freezer has thawed all after the lease ended. */
  onThawed(answers: readonly FilesystemAnswer[]): void;
  /** The connection ended without close() having been called. Called once, with nothing after it. */
  onLost(error: Error): void;
}

export interface Refusal {
  readonly ok: false;
  readonly code: string;
  readonly words: readonly string[];
  readonly text: string;
}

/** The lines that came before the last one of an answer. */
interface Told {
  readonly answers: FilesystemAnswer[];
  readonly hung: HungFilesystem[];
}

type LastLine = Extract<FreezerLine, { kind: 'ok' | 'error' }>;

interface Pending extends Told {
  readonly verb: string;
  readonly resolve: (line: LastLine) => void;
  readonly reject: (error: Error) => void;
}

export class Exchange {
  readonly #socket: Duplex;
  readonly #events: FreezerEvents;
  #pending: Pending[] = [];
  #unasked: FilesystemAnswer[] = [];
  #filesystems = 0;
  #rest = '';
  #over: Error | undefined;
  #closing = false;

  constructor(socket: Duplex, events: FreezerEvents) {
    this.#socket = socket;
    this.#events = events;
    socket.setEncoding('latin1');
    socket.on('data', (text: string) => {
      this.#receive(text);
    });
    socket.on('error', (error) => {
      this.#end(error);
    });
    socket.on('close', () => {
      this.#end(new Error('the freezer closed the connection'));
    });
  }

  /** How many filesystems the freezer was asked to add. */
  get filesystems(): number {
    return this.#filesystems;
  }

  /** More answers are expected from now on. */
  countFilesystem(): void {
    this.#filesystems++;
  }

  get lost(): boolean {
    return this.#over !== undefined;
  }

  /**
   * Sends one request and waits for its answer, at most `limitMs` if there is one. Throws an UnreachableError if the
   * connection is lost, a DeadlineError (outcome unknown) at the limit.
   */
  async ask(
    verb: string,
    line: string,
    limitMs: number | undefined,
  ): Promise<(Refusal | { readonly ok: true; readonly words: readonly string[] }) & Told> {
    if (this.#over !== undefined) throw lostError(verb, this.#over);
    const told: Told = { answers: [], hung: [] };
    const answered = new Promise<LastLine>((resolve, reject) => {
      this.#pending.push({ verb, ...told, resolve, reject });
    });
    this.#socket.write(`${line}\n`);
    const final = await (limitMs === undefined
      ? answered
      : withLimit(`freezer: ${verb}`, limitMs, answered, 'unknown'));
    if (final.kind === 'ok') return { ok: true, words: final.words, ...told };
    return { ok: false, code: final.code, words: final.words, text: final.text, ...told };
  }

  /** Ends the connection of what is no freezer: requests under way fail, and onLost is called. */
  breakOff(error: Error): void {
    this.#socket.destroy(error);
  }

  /** Ends the connection without onLost. Requests under way fail. */
  close(): void {
    this.#closing = true;
    this.#socket.destroy();
  }

  #receive(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) {
      if (line.length >= LINE_LIMIT_BYTES) break;
      const parsed = parseFreezerLine(line);
      if (parsed === undefined) {
        const said = JSON.stringify(line.slice(0, 200));
        this.breakOff(new Error(`the freezer said ${said}, which is none of its protocol`));
        return;
      }
      this.#take(parsed);
      if (this.#socket.destroyed) return;
    }
    if (this.#rest.length >= LINE_LIMIT_BYTES || lines.some((line) => line.length >= LINE_LIMIT_BYTES)) {
      this.breakOff(new Error(`expected lines of at most ${LINE_LIMIT_BYTES} bytes, the freezer said a longer one`));
      this.#rest = '';
    }
  }

  #take(line: FreezerLine): void {
    switch (line.kind) {
      case 'filesystem': {
        // A sync that was late is told with the freeze that waited for it.
        const asked =
          this.#pending.find((pending) => pending.verb === line.answer.verb) ??
          (line.answer.verb === 'sync' ? this.#pending.find((pending) => pending.verb === 'freeze') : undefined);
        (asked?.answers ?? this.#unasked).push(line.answer);
        // Thaw lines of an expiry may come while our own thaw waits for its answer: both want them.
        if (asked !== undefined) this.#unasked.push(line.answer);
        this.#checkCount(this.#unasked.length);
        return;
      }
      case 'hung': {
        const { hung = [] } = this.#pending.find(({ verb }) => verb === 'hung') ?? {};
        this.#checkCount(hung.push(line.hung));
        return;
      }
      case 'event':
        if (line.name === 'expired') this.#events.onExpired();
        else if (line.name === 'thawed')
          this.#events.onThawed(this.#unasked.filter((answer) => answer.verb === 'thaw'));
        return;
      case 'ok':
      case 'error': {
        // An error does not name its request. Answers keep the order of the requests but for those that overtake a
        // sync or freeze under way, and of these only thaw is sent meanwhile: it is answered after what it ends.
        const index = line.kind === 'ok' ? this.#pending.findIndex((pending) => pending.verb === line.verb) : 0;
        const [answered] = index < 0 ? [] : this.#pending.splice(index, 1);
        if (answered === undefined)
          this.breakOff(new Error(`the freezer answered ${line.kind} without having been asked`));
        else answered.resolve(line);
        return;
      }
    }
  }

  #checkCount(answers: number): void {
    const limit = Math.max(ANSWERS_LEAST, ANSWERS_EACH * this.#filesystems);
    if (answers > limit) this.breakOff(new Error(`the freezer answered for more than ${limit} filesystems`));
  }

  #end(error: Error): void {
    if (this.#over !== undefined) return;
    this.#over = error;
    const pending = this.#pending;
    this.#pending = [];
    for (const { verb, reject } of pending) reject(lostError(verb, error));
    if (!this.#closing) this.#events.onLost(error);
  }
}

function lostError(verb: string, cause: Error): UnreachableError {
  return new UnreachableError('E_FREEZER_LOST', `freezer: connection lost at ${verb}`, { cause, outcome: 'unknown' });
}
