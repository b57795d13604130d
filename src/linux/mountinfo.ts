// Reads the text of mountinfo (proc_pid_mountinfo(5)) in turns, and parses it line by line. The text is bytes, one for
// each character (latin1): names in it need not be UTF-8 (path-text.ts). What the mounts mean: mounts.ts.
import { closeSync, openSync, readSync } from 'node:fs';
import { decodeOctal } from './path-text.js';
import type { Work } from './turns.js';

export interface Mount {
  readonly id: number;
  readonly parentId: number;
  /** `MAJOR:MINOR` of the superblock; major 0 (anonymous) for filesystems without one block device. */
  readonly device: string;
  /** The folder or file of the filesystem that is mounted; `/` but for a bind mount or a btrfs subvolume. */
  readonly root: string;
  readonly mountpoint: string;
  readonly options: readonly string[];
  readonly type: string;
  readonly source: string;
  /** As the kernel writes them, octal escapes and all. */
  readonly superOptions: readonly string[];
}

/** Lines between two places where parsing may be interrupted: about a millisecond's work. */
const LINES_AT_ONCE = 256;

/**
 * The kernel makes mountinfo while it is read, 4 KiB or so at a time and about a microsecond and a half for each line,
 * so that to read a long one at once would hold the event loop. Throws what open(2) and read(2) do.
 */
export function* readInTurns(path: string): Work<Buffer> {
  const chunks: Buffer[] = [];
  const file = openSync(path, 'r');
  try {
    for (;;) {
      const chunk = Buffer.allocUnsafeSlow(64 * 1024);
      let length = 0;
      for (let read = -1; read !== 0 && length < chunk.length; length += read) {
        read = readSync(file, chunk, length, chunk.length - length, null);
      }
      if (length > 0) chunks.push(chunk.subarray(0, length));
      if (length < chunk.length) return Buffer.concat(chunks);
      yield;
    }
  } finally {
    closeSync(file);
  }
}

/** Throws an Error that names the line that is not mountinfo. */
export function* parseMountinfo(text: string): Work<readonly Mount[]> {
  const parse = lineParser();
  const mounts: Mount[] = [];
  for (const line of linesOf(text)) {
    if (mounts.length % LINES_AT_ONCE === 0) yield;
    mounts.push(parse(line));
  }
  return mounts;
}

/**
 * One mount of each superblock whose device is not in `known`, without a look at the rest of any other line: what a
 * copy of a long table takes, of which nothing is new. Throws as parseMountinfo does.
 */
export function* mountsOfNewDevices(text: string, known: ReadonlySet<string>): Work<readonly Mount[]> {
  const parse = lineParser();
  const found = new Map<string, Mount>();
  let lines = 0;
  for (let start = 0; start < text.length;) {
    if (lines++ % LINES_AT_ONCE === 0) yield;
    const device = thirdWord(text, start);
    const isNew = !known.has(device) && !found.has(device);
    const end = lineEnd(text, start);
    if (isNew && end > start) found.set(device, parse(text.slice(start, end)));
    start = end + 1;
  }
  return [...found.values()];
}

// It may be anything if the text is no mountinfo: parsing says so.
function thirdWord(text: string, start: number): string {
  const second = text.indexOf(' ', start) + 1;
  const third = text.indexOf(' ', second) + 1;
  return text.slice(third, text.indexOf(' ', third));
}

function lineEnd(text: string, start: number): number {
  const end = text.indexOf('\n', start);
  return end < 0 ? text.length : end;
}

function* linesOf(text: string): Generator<string> {
  for (let start = 0; start < text.length;) {
    const end = lineEnd(text, start);
    if (end > start) yield text.slice(start, end);
    start = end + 1;
  }
}

function lineParser(): (line: string) => Mount {
  // Thousands of mounts have the same few lists of options.
  const lists = new Map<string, readonly string[]>();
  const listOf = (text: string): readonly string[] => {
    const known = lists.get(text);
    if (known !== undefined) return known;
    const list = text.split(',');
    lists.set(text, list);
    return list;
  };
  return (line) => {
    const words = line.split(' ');
    const separator = words.indexOf('-', 6);
    const [id, parentId, device, root, mountpoint, options] = words;
    const [type, source, superOptions] = separator < 0 ? [] : words.slice(separator + 1);
    if (
      id === undefined ||
      parentId === undefined ||
      device === undefined ||
      root === undefined ||
      mountpoint === undefined ||
      options === undefined ||
      type === undefined ||
      !/^\d+:\d+$/.test(device)
    )
      throw new Error(`not a line of mountinfo: ${JSON.stringify(line)}`);
    return {
      id: Number(id),
      parentId: Number(parentId),
      device,
      root: decodeOctal(root),
      mountpoint: decodeOctal(mountpoint),
      options: listOf(options),
      type: decodeOctal(type),
      source: decodeOctal(source ?? ''),
      superOptions: listOf(superOptions ?? ''),
    };
  };
}
