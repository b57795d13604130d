// Waits for a thaw that nobody confirmed: the freezer goes on with it when we stopped waiting, and removes its marker
// when it is done; one that died is made up for by `--thaw-marked`, again and again. Reads tmpfs alone.
import { thawMarked, type FreezerPlaces } from './freezer-process.js';
import { markedSessions } from './markers.js';

const LOOK_MS = 500;
const LOOKS_BETWEEN_THAWS = 20;

/**
 * Settles when no marker names the session any more (without one: those that are named now), and never rejects. One
 * that was set aside by a freezer started anew counts. Keeps no process alive.
 */
export async function untilThawed(places: FreezerPlaces, session?: string): Promise<void> {
  const sought = new Set(session === undefined ? markedSessions(places.markerPath) : [session]);
  for (let looks = 1; ; looks++) {
    await new Promise((resolve) => {
      setTimeout(resolve, LOOK_MS).unref();
    });
    if (!markedSessions(places.markerPath).some((marked) => marked === '' || sought.has(marked))) return;
    // It leaves a freezer that answers alone, and that one thaws by itself.
    if (looks % LOOKS_BETWEEN_THAWS === 0) await thawMarked(places).catch(() => undefined);
  }
}
