// Waits for a thaw that nobody confirmed. The freezer goes on with it when we stopped waiting, and removes its marker
// when it is done; `--thaw-marked` makes up for a freezer that died. Writes nothing. The thaw of a living session:
// hold.ts.
import { setTimeout as sleep } from 'node:timers/promises';
import { Deadline } from '../../deadline.js';
import { describeError } from '../../errors.js';
import { connectToSocket, noEvents } from './client.js';
import { markedSession, markedSessions } from './markers.js';
import { thawMarked, type FreezerPlaces } from './process.js';

/** Between two looks at the markers, while there is no limit. */
const LOOK_MS = 500;
const LOOKS_BETWEEN_THAWS = 20;
/** Between two questions to the freezer, while somebody waits. */
const POLL_MS = 50;
/** A freezer that says nothing this long is stopped. */
const ANSWER_MS = 1_000;

/**
 * Settles when no marker names the session any more (without one: those that are named now), and never rejects. A
 * marker that was set aside by a freezer started anew counts. Keeps no process alive. `lookMs`: for tests.
 */
export async function untilThawed(places: FreezerPlaces, session?: string, lookMs = LOOK_MS): Promise<void> {
  const sought = new Set(session === undefined ? markedSessions(places.markerPath) : [session]);
  for (let looks = 1; ; looks++) {
    await sleep(lookMs, undefined, { ref: false });
    if (!markedSessions(places.markerPath).some((marked) => marked === '' || sought.has(marked))) return;
    if (looks % LOOKS_BETWEEN_THAWS !== 0 || (await isSeenTo(places, sought))) continue;
    await thawMarked(places).catch(() => undefined);
  }
}

/**
 * Waits for the freezer to thaw what dead processes held, these sessions, at most `limitMs`; where no freezer answers,
 * thaws by its marker. Undefined, or what may still be frozen. Never throws.
 */
export async function thawLeft(
  places: FreezerPlaces,
  sessions: ReadonlySet<string>,
  limitMs: number,
): Promise<string | undefined> {
  const deadline = new Deadline(limitMs);
  for (;;) {
    const holder = await sessionHeld(places.socketPath);
    if (holder === undefined) return await whyNotThawed(places);
    // Idle, or held by somebody who lives. What hangs is the freezer's, and stands in nobody's way.
    if (!sessions.has(holder)) return undefined;
    if (deadline.passed) return `the freezer has not thawed session ${holder} within ${limitMs} ms`;
    await sleep(POLL_MS);
  }
}

async function whyNotThawed(places: FreezerPlaces): Promise<string | undefined> {
  try {
    await thawMarked(places);
    return undefined;
  } catch (error) {
    return describeError(error);
  }
}

/** The session that the freezer holds, '' if none; undefined if no freezer answers. */
async function sessionHeld(socketPath: string): Promise<string | undefined> {
  try {
    const freezer = await connectToSocket(socketPath, noEvents);
    try {
      const { state, session } = await freezer.status();
      return state === 'idle' ? '' : session;
    } finally {
      freezer.close();
    }
  } catch {
    return undefined;
  }
}

// A freezer that answers thaws by itself. One that does not may hold a later session, which looks after its own lease:
// `--thaw-marked` would kill that freezer in the middle of it.
async function isSeenTo({ socketPath, markerPath }: FreezerPlaces, sought: ReadonlySet<string>): Promise<boolean> {
  const freezer = await connectToSocket(socketPath, noEvents).catch(() => undefined);
  if (freezer === undefined) return false;
  try {
    await freezer.status(ANSWER_MS);
    return true;
  } catch {
    const holder = markedSession(markerPath) ?? '';
    return holder !== '' && !sought.has(holder);
  } finally {
    freezer.close();
  }
}
