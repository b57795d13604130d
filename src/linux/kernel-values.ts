// Reads small files, folders and links whole: those of /proc, /sys and /run, and whatever else answers at once. Nothing
// here throws: what is not there, or cannot be read, is undefined, and a folder is empty. Long texts, in turns:
// mountinfo.ts.
import { readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs';
import { pathText } from './path-text.js';

/** Names in a folder, in the order of their code units. */
export function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return [];
  }
}

/** The whole text, its last newline too. */
export function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

/** The text without its last newline; undefined also where there is none. */
export function readValue(path: string): string | undefined {
  return filled(readText(path));
}

/** A path that a file holds, whose bytes need not be UTF-8 (path-text.ts). */
export function readPath(path: string): string | undefined {
  try {
    return filled(pathText(readFileSync(path)));
  } catch {
    return undefined;
  }
}

/**
 * Where a path leads, all links followed. Waits for whoever serves it: elsewhere than in /sys, see safe-real-path.ts.
 */
export function realPath(path: string): string | undefined {
  try {
    return realpathSync.native(path);
  } catch {
    return undefined;
  }
}

/** What a link says, as it stands there. */
export function linkTarget(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

function filled(text: string | undefined): string | undefined {
  const value = text?.replace(/\n$/, '');
  return value === '' ? undefined : value;
}
