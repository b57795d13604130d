// Reads the freezer's markers on tmpfs (qga/freezer/README.md, "The marker"): while one exists, something may be
// frozen.
import { readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { isErrno } from '../../errors.js';
import { freezerText } from './lines.js';

/** The paths of the session's marker, if there is one, and of those of what hangs, whoever left it. Never throws. */
export function markerFiles(markerPath: string): readonly string[] {
  try {
    const name = basename(markerPath);
    return readdirSync(dirname(markerPath))
      .filter((entry) => entry === name || (entry.startsWith(`${name}.left-`) && !entry.endsWith('.new')))
      .map((entry) => join(dirname(markerPath), entry));
  } catch {
    return [];
  }
}

/** The sessions that markers name; '' for one that cannot be read. */
export function markedSessions(markerPath: string): readonly string[] {
  return markerFiles(markerPath).flatMap((path) => markedSession(path) ?? []);
}

/** The session that this marker names; '' if it cannot be read, undefined if there is no such file. */
export function markedSession(path: string): string | undefined {
  try {
    const [magic, , , , session] = readFileSync(path, 'utf8').split('\n', 1)[0]?.split(' ') ?? [];
    return magic === 'fsfreeze-bridge' && session !== undefined ? freezerText(session) : '';
  } catch (error) {
    return isErrno(error, 'ENOENT') ? undefined : '';
  }
}
