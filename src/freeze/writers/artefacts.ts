// Reads what writers left in `artefacts` of their scratch folders for whoever keeps the snapshot. Regular files alone,
// of bounded length and number: they travel in a report, and anything may lie there. Not for when something is frozen.
import { closeSync, constants, fstatSync, openSync, opendirSync, readSync } from 'node:fs';
import { join } from 'node:path';
import type { Artefact } from '../../consistency.js';

const FILE_BYTES = 64 * 1024;
const SESSION_BYTES = 256 * 1024;
/** Of all writers together; a name alone takes place, too. */
const SESSION_FILES = 64;
const NAMES_LOOKED_AT = 256;

interface Scratch {
  /** The writer's. */
  readonly name: string;
  readonly dir: string;
}

/**
 * In the order of the writers, then of the names. What is no regular file, or cannot be read, is passed over. Never
 * throws.
 */
export function readArtefacts(scratches: readonly Scratch[]): Artefact[] {
  const found: Artefact[] = [];
  let left = SESSION_BYTES;
  for (const { name: writer, dir } of scratches) {
    within(join(dir, 'artefacts'), (folder, names) => {
      for (const name of names) {
        if (found.length >= SESSION_FILES) return;
        const read = readFile(`${folder}/${name}`, Math.min(FILE_BYTES, left));
        if (read === undefined) continue;
        left -= read.bytes.length;
        const { bytes, size } = read;
        found.push({ writer, name, ...content(bytes), size, ...(size > bytes.length ? { truncated: true } : {}) });
      }
    });
  }
  return found;
}

// The folder is opened once, and is no link: what is put in its place meanwhile is not looked at.
function within(path: string, look: (folder: string, names: readonly string[]) => void): void {
  let fd: number | undefined;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
    const folder = `/proc/self/fd/${fd}`;
    look(folder, namesIn(folder));
  } catch {
    // There is none: most writers leave nothing.
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

function namesIn(folder: string): readonly string[] {
  const dir = opendirSync(folder);
  const names: string[] = [];
  try {
    for (let looked = 0; looked < NAMES_LOOKED_AT; looked++) {
      const entry = dir.readSync();
      if (entry === null) break;
      // A name that is no UTF-8 cannot be told in a report, and one with control characters steers a terminal.
      if (!/[\u0000-\u001f\u007f-\u009f\ufffd]/.test(entry.name)) names.push(entry.name);
    }
  } finally {
    dir.closeSync();
  }
  return names.sort();
}

function readFile(path: string, limit: number): { readonly bytes: Buffer; readonly size: number } | undefined {
  let fd: number | undefined;
  try {
    // A pipe that nobody writes to must not block.
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const stats = fstatSync(fd);
    if (!stats.isFile()) return undefined;
    const bytes = Buffer.alloc(Math.min(limit, stats.size));
    return { bytes: bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, 0)), size: stats.size };
  } catch {
    return undefined;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

function content(bytes: Buffer): Pick<Artefact, 'text' | 'base64'> {
  const text = bytes.toString('utf8');
  const isText = !/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/.test(text) && Buffer.from(text).equals(bytes);
  return isText ? { text } : { base64: bytes.toString('base64') };
}
