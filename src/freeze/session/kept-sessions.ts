// All sessions that are kept for their requesters' last word (kept-session.ts), those of agents before this one
// included: 16 at most, each for 24 hours of guest running time. Nothing is looked at by itself: what is too old goes
// when the next one comes or is asked for.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { KeptListing } from '../../consistency.js';
import { describeError } from '../../errors.js';
import { monotonicMs } from '../../linux/clock.js';
import { namesIn } from '../../linux/kernel-values.js';
import type { Settings } from '../settings.js';
import { KeptRecord, type KeptHead } from '../writers/kept-record.js';
import { KeptSession, type EndedSession } from './kept-session.js';

const KEPT_AT_MOST = 16;
const KEPT_FOR_MS = 24 * 3_600_000;

/** Sessions of which `complete` of some writer runs, whichever process began it. */
export function completingSessions(runtimeDir: string): readonly string[] {
  const dir = keptDir(runtimeDir);
  return namesIn(dir).filter((name) => KeptRecord.at(dir, name).runningProcesses().length > 0);
}

function keptDir(runtimeDir: string): string {
  return join(runtimeDir, 'kept');
}

export class KeptSessions {
  readonly #settings: Pick<Settings, 'runtimeDir' | 'log'>;
  /** By id, the latest last; read when first needed. */
  #all: Map<string, KeptSession> | undefined;

  constructor(settings: Pick<Settings, 'runtimeDir' | 'log'>) {
    this.#settings = settings;
  }

  /** Never throws: a session that cannot be kept is one that nobody can complete. */
  keep(ended: EndedSession): void {
    const { session } = ended.report;
    const all = this.#load();
    try {
      mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
      const kept = KeptSession.keep(this.#folder, ended);
      all.delete(session);
      all.set(session, kept);
    } catch (error) {
      this.#settings.log.warn({ session }, `not kept for bridge-complete: ${describeError(error)}`);
    }
    this.#forget();
  }

  /** Undefined if it is unknown, or forgotten. */
  find(session: string): KeptSession | undefined {
    this.#load();
    this.#forget();
    return this.#all?.get(session);
  }

  /** For people, the latest last. `running`: ids of those of which `complete` runs. */
  list(running: readonly string[]): readonly KeptListing[] {
    const known = [...this.#load().values()].filter((kept) => !this.#isOld(kept));
    return known.map(({ head: { session, requester, endedMs }, completion }) => ({
      session,
      requester,
      endedForMs: Math.max(0, Math.round(monotonicMs() - endedMs)),
      state: completion !== undefined ? 'completed' : running.includes(session) ? 'running' : 'waiting',
      ...(completion === undefined ? {} : { outcome: completion.outcome }),
    }));
  }

  /** Their writers, the latest last. */
  get reports(): readonly KeptHead['report'][] {
    return [...this.#load().values()].map(({ head: { report } }) => report);
  }

  /** At the start of the process: reads all, and ends what a dead agent left running of a `complete`. Never throws. */
  async takeOver(): Promise<void> {
    await Promise.all(
      [...this.#load().values()].map(async (kept) => {
        await kept.endLeft();
      }),
    );
  }

  get #folder(): string {
    return keptDir(this.#settings.runtimeDir);
  }

  #load(): Map<string, KeptSession> {
    this.#all ??= new Map(this.#read().map((kept) => [kept.head.session, kept]));
    return this.#all;
  }

  #read(): readonly KeptSession[] {
    return namesIn(this.#folder)
      .flatMap((name) => {
        try {
          return KeptSession.open(this.#folder, name) ?? [];
        } catch (error) {
          this.#settings.log.warn({ session: name }, `what was kept of it cannot be read: ${describeError(error)}`);
          return [];
        }
      })
      .sort((a, b) => a.head.endedMs - b.head.endedMs);
  }

  #isOld({ head }: KeptSession): boolean {
    return monotonicMs() - head.endedMs >= KEPT_FOR_MS;
  }

  #forget(): void {
    const all = this.#load();
    const tooMany = all.size - KEPT_AT_MOST;
    for (const [index, [session, kept]] of [...all].entries()) {
      if (index >= tooMany && !this.#isOld(kept)) continue;
      all.delete(session);
      try {
        kept.remove();
      } catch (error) {
        this.#settings.log.warn({ session }, `what was kept of it cannot be removed: ${describeError(error)}`);
      }
    }
  }
}
