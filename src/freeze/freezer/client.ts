// One connection to the freezer (qga/freezer/README.md): requests with a time limit each, what comes unasked, and
// the end of the connection. Starting, killing and replacing the freezer is process.ts's business.
import { createConnection } from 'node:net';
import type { Duplex } from 'node:stream';
import { UnreachableError } from '../../errors.js';
import { withLimit } from '../../deadline.js';
import {
  freezerText,
  freezerWord,
  parseFreezerLine,
  type FilesystemAnswer,
  type FreezerLine,
  type HungFilesystem,
} from './lines.js';

/** For requests that the freezer answers at once. */
const PROMPT_MS = 5_000;
/** It answers a thaw within 2 s, whatever the disks do. */
const THAW_ANSWER_MS = 3_500;
const SYNC_GRACE_MS = 2_000;
/** Its lines are 8192 bytes at most. What sends more, or more answers than it was asked for, is no freezer. */
const LINE_LIMIT = 8_192;
/** For each filesystem: five syncs, a late one, a freeze and some thaws; and for those that hang, which nobody counted. */
const ANSWERS_EACH = 16;
const ANSWERS_LEAST = 16_384;

export interface FreezerIdentity {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat: a pid alone may be somebody else's by now. */
  readonly startTime: string;
}

export interface FreezerEvents {
  /** The lease ended; it is thawing, unless a critical section lasts. */
  onExpired(): void;
  /** It has thawed all after the lease ended. */
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
type Done<T> = Refusal | ({ readonly ok: true } & T);

export interface FreezerStatus {
  readonly state: string;
  readonly session: string;
  readonly owner: string;
  /** On CLOCK_MONOTONIC; 0 while nothing is frozen. */
  readonly deadlineMs: number;
}

interface Pending {
  readonly verb: string;
  readonly answers: FilesystemAnswer[];
  readonly hung: HungFilesystem[];
  readonly resolve: (line: Extract<FreezerLine, { kind: 'ok' | 'error' }>) => void;
  readonly reject: (error: Error) => void;
}

export class FreezerConnection {
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

  async hello(): Promise<FreezerIdentity> {
    const answer = await this.#ask('hello', 'hello', PROMPT_MS);
    const [version, pid = '', startTime] = answer.ok ? answer.words : [];
    if (version !== '1' || !isWhole(pid) || startTime === undefined)
      throw new UnreachableError(
        'E_FREEZER_VERSION',
        `freezer: expected protocol version 1, found ${answer.ok ? (version ?? 'nothing') : answer.text}`,
      );
    return { pid: Number(pid), startTime };
  }

  /** Takes the session. `budgetMs`: planned longer than that, the freezer kills this process. */
  async plan(request: {
    readonly session: string;
    readonly owner: string;
    readonly leaseMaxMs: number;
    readonly budgetMs: number;
    readonly expedite: boolean;
  }): Promise<Done<object>> {
    const { session, owner, leaseMaxMs, budgetMs, expedite } = request;
    const words = [
      freezerWord(session),
      freezerWord(shortOwner(owner)),
      whole(leaseMaxMs),
      whole(budgetMs),
      expedite ? '1' : '0',
    ];
    return await this.#ask('plan', `plan ${words.join(' ')}`, PROMPT_MS);
  }

  /** Refused with code `fs`, its first word is the errno. */
  async add(group: number, mountId: number, device: string, path: string): Promise<Done<{ readonly index: number }>> {
    this.#filesystems++;
    const answer = await this.#ask('fs', `fs ${group} ${mountId} ${device} ${freezerWord(path)}`, PROMPT_MS);
    return answer.ok ? { ok: true, index: this.#whole('fs', answer.words[0]) } : answer;
  }

  async sync(budgetMs: number): Promise<Done<{ readonly answers: readonly FilesystemAnswer[] }>> {
    return await this.#ask('sync', `sync ${whole(budgetMs)}`, budgetMs + SYNC_GRACE_MS);
  }

  /**
   * Deadline on CLOCK_MONOTONIC. Among the answers are those of syncs that were late. Its own limit is the caller's
   * watch over the lease. Refused with code `freeze` when a filesystem had not frozen within `limitMs` (default: within
   * the lease): then the rest is being thawed already, and `answers` name it.
   */
  async freeze(
    leaseMs: number,
    limitMs?: number,
  ): Promise<
    (Refusal | { readonly ok: true; readonly firstMs: number; readonly deadlineMs: number }) & {
      readonly answers: readonly FilesystemAnswer[];
    }
  > {
    const words = [leaseMs, ...(limitMs === undefined ? [] : [limitMs])].map(whole).join(' ');
    const answer = await this.#ask('freeze', `freeze ${words}`, undefined);
    if (!answer.ok) return answer;
    const [, first, deadline] = answer.words;
    return {
      ok: true,
      answers: answer.answers,
      firstMs: this.#whole('freeze', first) / 1e6,
      deadlineMs: this.#whole('freeze', deadline) / 1e6,
    };
  }

  async renew(leaseMs: number): Promise<Done<{ readonly deadlineMs: number }>> {
    const answer = await this.#ask('renew', `renew ${whole(leaseMs)}`, PROMPT_MS);
    return answer.ok ? { ok: true, deadlineMs: this.#whole('renew', answer.words[0]) / 1e6 } : answer;
  }

  async critical(on: boolean, boundMs: number): Promise<Done<object>> {
    return await this.#ask('critical', on ? `critical on ${whole(boundMs)}` : 'critical off', PROMPT_MS);
  }

  /**
   * May be sent while sync or freeze is under way: ends them. Answers of a refusal are what is known so far, but for code
   * `expired`, which ends the session as an `ok` does: ETIMEDOUT means then that it was given up.
   */
  async thaw(): Promise<(Refusal | { readonly ok: true }) & { readonly answers: readonly FilesystemAnswer[] }> {
    return await this.#ask('thaw', 'thaw', THAW_ANSWER_MS);
  }

  async status(limitMs = PROMPT_MS): Promise<FreezerStatus> {
    const answer = await this.#ask('status', 'status', limitMs);
    if (!answer.ok) throw new UnreachableError('E_FREEZER', `freezer: status: ${answer.text}`);
    const [state = '', session = '\\', owner = '\\', , , deadline] = answer.words;
    return {
      state,
      session: freezerText(session),
      owner: freezerText(owner),
      deadlineMs: this.#whole('status', deadline) / 1e6,
    };
  }

  /** What it has given up. A freezer of before this was known answers nothing. */
  async hung(limitMs = PROMPT_MS): Promise<readonly HungFilesystem[]> {
    const answer = await this.#ask('hung', 'hung', limitMs);
    return answer.hung;
  }

  /** Gives the session up, if it is held: the freezer thaws everything. */
  close(): void {
    this.#closing = true;
    this.#socket.destroy();
  }

  /** How many it was asked to add. */
  get filesystems(): number {
    return this.#filesystems;
  }

  get lost(): boolean {
    return this.#over !== undefined;
  }

  async #ask(
    verb: string,
    line: string,
    limitMs: number | undefined,
  ): Promise<(Refusal | { readonly ok: true; readonly words: readonly string[] }) & Pick<Pending, 'answers' | 'hung'>> {
    if (this.#over !== undefined) throw lostError(verb, this.#over);
    const told: Pick<Pending, 'answers' | 'hung'> = { answers: [], hung: [] };
    const answered = new Promise<Extract<FreezerLine, { kind: 'ok' | 'error' }>>((resolve, reject) => {
      this.#pending.push({ verb, ...told, resolve, reject });
    });
    this.#socket.write(`${line}\n`);
    const final = await (limitMs === undefined
      ? answered
      : withLimit(`freezer: ${verb}`, limitMs, answered, 'unknown'));
    if (final.kind === 'ok') return { ok: true, words: final.words, ...told };
    return { ok: false, code: final.code, words: final.words, text: final.text, ...told };
  }

  #receive(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) {
      if (line.length >= LINE_LIMIT) break;
      const parsed = parseFreezerLine(line);
      if (parsed === undefined) {
        const said = JSON.stringify(line.slice(0, 200));
        this.#socket.destroy(new Error(`the freezer said ${said}, which is none of its protocol`));
        return;
      }
      this.#take(parsed);
      if (this.#socket.destroyed) return;
    }
    if (this.#rest.length >= LINE_LIMIT || lines.some((line) => line.length >= LINE_LIMIT)) {
      this.#socket.destroy(new Error(`expected lines of at most ${LINE_LIMIT} bytes, the freezer said a longer one`));
      this.#rest = '';
    }
  }

  /** A number of an answer. One that is none would never compare as past or to come. */
  #whole(verb: string, word: string | undefined): number {
    if (word !== undefined && isWhole(word)) return Number(word);
    const found = word === undefined ? 'nothing' : JSON.stringify(word.slice(0, 200));
    const error = new UnreachableError('E_FREEZER', `freezer: answer to ${verb}: expected a number, found ${found}`, {
      outcome: 'unknown',
    });
    this.#socket.destroy(error);
    throw error;
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
          this.#socket.destroy(new Error(`the freezer answered ${line.kind} without having been asked`));
        else answered.resolve(line);
        return;
      }
    }
  }

  #checkCount(answers: number): void {
    const limit = Math.max(ANSWERS_LEAST, ANSWERS_EACH * this.#filesystems);
    if (answers > limit) this.#socket.destroy(new Error(`the freezer answered for more than ${limit} filesystems`));
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

const isWhole = (word: string): boolean => /^\d{1,19}$/.test(word);

function lostError(verb: string, cause: Error): UnreachableError {
  return new UnreachableError('E_FREEZER_LOST', `freezer: connection lost at ${verb}`, { cause, outcome: 'unknown' });
}

/** The protocol takes at most 256 bytes. */
function shortOwner(owner: string): string {
  return Buffer.byteLength(owner) <= 256 ? owner : `${owner.slice(0, 60)}...`;
}

function whole(ms: number): string {
  return String(Math.max(1, Math.round(ms)));
}

/** Throws an UnreachableError if nobody listens there. */
export async function connectToSocket(path: string, events: FreezerEvents): Promise<FreezerConnection> {
  const socket = createConnection(path);
  try {
    await withLimit(
      `freezer at ${path}`,
      PROMPT_MS,
      new Promise<void>((resolve, reject) => {
        socket.once('connect', () => {
          resolve();
        });
        socket.once('error', reject);
      }),
    );
  } catch (cause) {
    socket.destroy();
    throw new UnreachableError('E_FREEZER', `no freezer answers at ${path}`, { cause });
  }
  return new FreezerConnection(socket, events);
}
