// Waits for a thaw that nobody confirmed: the freezer goes on with it when we stopped waiting, and removes its marker
// when it is done; one that died is made up for by `--thaw-marked`, again and again. Reads tmpfs alone.
import { connectToSocket } from './client.js';
import { thawMarked, type FreezerPlaces } from './process.js';
import { markedSession, markedSessions } from './markers.js';

const LOOK_MS = 500;
const LOOKS_BETWEEN_THAWS = 20;
/** A freezer that says nothing this long is stopped. */
const ANSWER_MS = 1_000;

/**
 * Settles when no marker names the session any more (without one: those that are named now), and never rejects. One
 * that was set aside by a freezer started anew counts. Keeps no process alive. `lookMs`: for tests.
 */
export async function untilThawed(places: FreezerPlaces, session?: string, lookMs = LOOK_MS): Promise<void> {
  const sought = new Set(session === undefined ? markedSessions(places.markerPath) : [session]);
  for (let looks = 1; ; looks++) {
    await new Promise((resolve) => {
      setTimeout(resolve, lookMs).unref();
    });
    if (!markedSessions(places.markerPath).some((marked) => marked === '' || sought.has(marked))) return;
    if (looks % LOOKS_BETWEEN_THAWS !== 0 || (await isSeenTo(places, sought))) continue;
    await thawMarked(places).catch(() => undefined);
  }
}

// A freezer that answers thaws by itself. One that does not may hold a later session, which looks after its own lease:
// `--thaw-marked` would kill that freezer in the middle of it.
async function isSeenTo({ socketPath, markerPath }: FreezerPlaces, sought: ReadonlySet<string>): Promise<boolean> {
  const freezer = await connectToSocket(socketPath, { onExpired() {}, onThawed() {}, onLost() {} }).catch(
    () => undefined,
  );
  try {
    await freezer?.status(ANSWER_MS);
    return freezer !== undefined;
  } catch {
    const holder = markedSession(markerPath) ?? '';
    return holder !== '' && !sought.has(holder);
  } finally {
    freezer?.close();
  }
}
