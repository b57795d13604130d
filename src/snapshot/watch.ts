// Watches what a held set has of room: extends in time, and tells at once when a snapshot is lost. A file tool may take a
// short read of a lost one for the end of the file, so whoever reads must not be believed then.
import { setTimeout as sleep } from 'node:timers/promises';
import { describeError } from '../errors.js';
import type { Snapshot } from './providers/provider.js';

const STEP_MS = 1_000;
/** Extended from here on. */
const FULL_PART = 0.7;
/** So often the last look is tried: what nobody knows to be whole is not. */
const LAST_TRIES = 3;
const LAST_STEP_MS = 500;

export interface WatchEvents {
  /** For people, once for each that happens. */
  readonly onNote: (text: string) => void;
  /** Called once. */
  readonly onLost: (reason: string) => void;
}

export interface Watch {
  /** Looks once more, and ends. Gives why the set is lost, or not known to be whole. Never throws. */
  end(): Promise<string | undefined>;
}

export function watchSnapshots(snapshots: readonly Snapshot[], events: WatchEvents): Watch {
  const watched = snapshots.map((snapshot) => new WatchedSnapshot(snapshot, events));
  const stop = new AbortController();
  let lost: string | undefined;
  const look = async (isLast = false): Promise<void> => {
    for (const one of watched) {
      const reason = isLast ? await one.lastLook() : await one.look();
      if (reason === undefined || lost !== undefined) continue;
      lost = reason;
      events.onLost(reason);
    }
  };
  const loop = async (): Promise<void> => {
    for (;;) {
      // First of all: what was just cut is whole, and the command waits to be started.
      await sleep(STEP_MS, undefined, { signal: stop.signal, ref: false }).catch(() => undefined);
      if (stop.signal.aborted || lost !== undefined) return;
      await look();
    }
  };
  const looping = loop();
  return {
    async end() {
      stop.abort();
      await looping;
      await look(true);
      return lost;
    },
  };
}

class WatchedSnapshot {
  readonly #snapshot: Snapshot;
  readonly #events: WatchEvents;
  #isToldFull = false;

  constructor(snapshot: Snapshot, events: WatchEvents) {
    this.#snapshot = snapshot;
    this.#events = events;
  }

  /** Why it is lost, if it is. What cannot be looked at now is looked at the next time. */
  async look(): Promise<string | undefined> {
    try {
      return await this.#lookNow();
    } catch (error) {
      this.#events.onNote(`${this.#snapshot.name}: ${describeError(error)}`);
      return undefined;
    }
  }

  /** There is no next time: one that cannot be looked at is as good as lost. */
  async lastLook(): Promise<string | undefined> {
    for (let tries = 1; ; tries += 1) {
      try {
        return await this.#lookNow();
      } catch (error) {
        const { name, volume } = this.#snapshot;
        if (tries === LAST_TRIES)
          return `whether the snapshot ${name} of ${volume.mountpoint} is whole cannot be told: ${describeError(error)}`;
        await sleep(LAST_STEP_MS);
      }
    }
  }

  async #lookNow(): Promise<string | undefined> {
    const { name, volume } = this.#snapshot;
    const { state, usedBytes = 0, totalBytes } = await this.#snapshot.status();
    if (state === 'lost')
      return `the snapshot ${name} of ${volume.mountpoint} is lost: its room was used up, or it failed`;
    if (state === 'gone') return `the snapshot ${name} of ${volume.mountpoint} is gone`;
    if (totalBytes !== undefined && usedBytes >= totalBytes * FULL_PART) await this.#extend();
    return undefined;
  }

  async #extend(): Promise<void> {
    if (this.#isToldFull) return;
    const { name, volume } = this.#snapshot;
    try {
      if (await this.#snapshot.extend()) return;
    } catch (error) {
      // It is whole all the same, and the next look tries again.
      this.#events.onNote(`${name}: ${describeError(error)}`);
      return;
    }
    this.#isToldFull = true;
    this.#events.onNote(
      `the snapshot ${name} of ${volume.mountpoint} is nearly full, and there is no room to extend it`,
    );
  }
}
