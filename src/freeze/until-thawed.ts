// Waits for a thaw that nobody confirmed: the freezer goes on with it when we stopped waiting, and removes its marker
// when it is done; one that died is made up for by `--thaw-marked`, again and again. Reads tmpfs alone.
import { readFileSync } from 'node:fs';
import { thawMarked, type FreezerPlaces } from './freezer-process.js';
import { freezerText } from './freezer-lines.js';

const LOOK_MS = 500;
const LOOKS_BETWEEN_THAWS = 20;

/**
 * Settles when the marker no longer names the session (without one: the session that it names now), and never rejects.
 * There is one session at a time, so that a marker of another says the same. Keeps no process alive.
 */
export async function untilThawed(places: FreezerPlaces, session?: string): Promise<void> {
  const sought = session ?? markedSession(places.markerPath);
  for (let looks = 1; ; looks++) {
    await new Promise((resolve) => {
      setTimeout(resolve, LOOK_MS).unref();
    });
    const marked = markedSession(places.markerPath);
    if (marked === undefined || (marked !== '' && marked !== sought)) return;
    // It leaves a freezer that answers alone, and that one thaws by itself.
    if (looks % LOOKS_BETWEEN_THAWS === 0) await thawMarked(places).catch(() => undefined);
  }
}

/** The session that the marker names; '' if it cannot be read, undefined if there is none. */
function markedSession(path: string): string | undefined {
  try {
    const [magic, , , , session] = readFileSync(path, 'utf8').split('\n', 1)[0]?.split(' ') ?? [];
    return magic === 'fsfreeze-bridge' && session !== undefined ? freezerText(session) : '';
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'ENOENT' ? undefined : '';
  }
}
