// The freezer's verbs (qga/freezer/README.md) over one connection, with a time limit each. Which line answers which
// request: exchange.ts. Starting, killing and replacing the freezer: process.ts.
import { createConnection } from 'node:net';
import type { Duplex } from 'node:stream';
import { withLimit } from '../../deadline.js';
import { UnreachableError } from '../../errors.js';
import { Exchange, type FreezerEvents, type Refusal } from './exchange.js';
import { freezerText, freezerWord, type FilesystemAnswer, type HungFilesystem } from './lines.js';

/** For requests that the freezer answers at once. */
const PROMPT_MS = 5_000;
/** The freezer answers a thaw within 2 s, whatever the disks do. */
const THAW_ANSWER_MS = 3_500;
const SYNC_GRACE_MS = 2_000;

export interface FreezerIdentity {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat: a pid alone may be somebody else's by now. */
  readonly startTime: string;
}

/** Each request throws an UnreachableError if the connection is lost, a DeadlineError if no answer comes in time. */
type Done<T> = Refusal | ({ readonly ok: true } & T);

export interface FreezerStatus {
  readonly state: string;
  readonly session: string;
  readonly owner: string;
  /** On CLOCK_MONOTONIC; 0 while nothing is frozen. */
  readonly deadlineMs: number;
}

export class FreezerConnection {
  readonly #exchange: Exchange;

  constructor(socket: Duplex, events: FreezerEvents) {
    this.#exchange = new Exchange(socket, events);
  }

  /** Throws an UnreachableError if it is no freezer of this protocol. */
  async hello(): Promise<FreezerIdentity> {
    const answer = await this.#exchange.ask('hello', 'hello', PROMPT_MS);
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
    return await this.#exchange.ask('plan', `plan ${words.join(' ')}`, PROMPT_MS);
  }

  /** Adds one filesystem to the plan. A refusal with code `fs` has the errno as its first word. */
  async add(group: number, mountId: number, device: string, path: string): Promise<Done<{ readonly index: number }>> {
    this.#exchange.countFilesystem();
    const answer = await this.#exchange.ask('fs', `fs ${group} ${mountId} ${device} ${freezerWord(path)}`, PROMPT_MS);
    return answer.ok ? { ok: true, index: this.#whole('fs', answer.words[0]) } : answer;
  }

  /** Syncs all that was added, side by side. What is not done within the budget answers ETIMEDOUT. */
  async sync(budgetMs: number): Promise<Done<{ readonly answers: readonly FilesystemAnswer[] }>> {
    return await this.#exchange.ask('sync', `sync ${whole(budgetMs)}`, budgetMs + SYNC_GRACE_MS);
  }

  /**
   * Freezes all that was added. `firstMs` and `deadlineMs` are times on CLOCK_MONOTONIC. Among the answers are those of
   * syncs that were late. This request has no time limit here: the caller watches the lease. It is refused with code
   * `freeze` when a filesystem had not frozen within `limitMs` (default: within the lease). The rest is being thawed by
   * then, and `answers` name it.
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
    const answer = await this.#exchange.ask('freeze', `freeze ${words}`, undefined);
    if (!answer.ok) return answer;
    const [, first, deadline] = answer.words;
    return {
      ok: true,
      answers: answer.answers,
      firstMs: this.#whole('freeze', first) / 1e6,
      deadlineMs: this.#whole('freeze', deadline) / 1e6,
    };
  }

  /** The lease ends in `leaseMs` from now, and no later than the maximum that plan() named. */
  async renew(leaseMs: number): Promise<Done<{ readonly deadlineMs: number }>> {
    const answer = await this.#exchange.ask('renew', `renew ${whole(leaseMs)}`, PROMPT_MS);
    return answer.ok ? { ok: true, deadlineMs: this.#whole('renew', answer.words[0]) / 1e6 } : answer;
  }

  /** While it is on, the freezer's thaw at the end of the lease waits for `off`, at most `boundMs`. */
  async critical(on: boolean, boundMs: number): Promise<Done<object>> {
    return await this.#exchange.ask('critical', on ? `critical on ${whole(boundMs)}` : 'critical off', PROMPT_MS);
  }

  /**
   * Thaws all, and gives the session up. May be sent while sync or freeze is under way: it ends them. The answers of a
   * refusal are what is known so far. A refusal with code `expired` ends the session as an `ok` does: there ETIMEDOUT
   * means that the filesystem was given up.
   */
  async thaw(): Promise<(Refusal | { readonly ok: true }) & { readonly answers: readonly FilesystemAnswer[] }> {
    return await this.#exchange.ask('thaw', 'thaw', THAW_ANSWER_MS);
  }

  async status(limitMs = PROMPT_MS): Promise<FreezerStatus> {
    const answer = await this.#exchange.ask('status', 'status', limitMs);
    if (!answer.ok) throw new UnreachableError('E_FREEZER', `freezer: status: ${answer.text}`);
    const [state = '', session = '\\', owner = '\\', , , deadline] = answer.words;
    return {
      state,
      session: freezerText(session),
      owner: freezerText(owner),
      deadlineMs: this.#whole('status', deadline) / 1e6,
    };
  }

  /** What the freezer has given up. A freezer that is older than this request names nothing. */
  async hung(limitMs = PROMPT_MS): Promise<readonly HungFilesystem[]> {
    const answer = await this.#exchange.ask('hung', 'hung', limitMs);
    return answer.hung;
  }

  /** Gives the session up, if it is held: the freezer thaws everything. */
  close(): void {
    this.#exchange.close();
  }

  /** How many filesystems the freezer was asked to add. */
  get filesystems(): number {
    return this.#exchange.filesystems;
  }

  get lost(): boolean {
    return this.#exchange.lost;
  }

  /**
   * A number of an answer. Throws an UnreachableError, and ends the connection, where there is none: NaN would compare
   * neither as past nor as to come.
   */
  #whole(verb: string, word: string | undefined): number {
    if (word !== undefined && isWhole(word)) return Number(word);
    const found = word === undefined ? 'nothing' : JSON.stringify(word.slice(0, 200));
    const error = new UnreachableError('E_FREEZER', `freezer: answer to ${verb}: expected a number, found ${found}`, {
      outcome: 'unknown',
    });
    this.#exchange.breakOff(error);
    throw error;
  }
}

const isWhole = (word: string): boolean => /^\d{1,19}$/.test(word);

/** The protocol takes an owner of at most 256 bytes. */
function shortOwner(owner: string): string {
  return Buffer.byteLength(owner) <= 256 ? owner : `${owner.slice(0, 60)}...`;
}

function whole(ms: number): string {
  return String(Math.max(1, Math.round(ms)));
}

/** For a connection that only asks, and holds no session. */
export const noEvents: FreezerEvents = { onExpired() {}, onThawed() {}, onLost() {} };

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
