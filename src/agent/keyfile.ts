// Parses and writes GLib's key file format, as far as qemu-ga.conf needs it: groups, comments, escapes, comma lists,
// GLib's booleans. Duplicate groups are merged and the last of two equal keys wins, as in GLib. What keys mean:
// configuration.ts.
import { UsageError } from '../errors.js';

// A line's blanks are ASCII's: a byte order mark, say, is a letter to GLib, and to trim() a blank.
const leading = /^[ \t\n\v\f\r]+/;
const trailing = /[ \t\n\v\f\r]+$/;

/** group -> key -> value, escapes still in it (`unescapeValue`). */
export type Keyfile = ReadonlyMap<string, ReadonlyMap<string, string>>;

/** Throws a UsageError that names file, line and what was expected. */
export function parseKeyfile(text: string, file: string): Keyfile {
  const groups = new Map<string, Map<string, string>>();
  let group: Map<string, string> | undefined;
  for (const [index, raw] of text.split('\n').entries()) {
    // Blanks behind a value are part of it, as in GLib.
    const line = raw.replace(leading, '').replace(/\r$/, '');
    if (line.replace(trailing, '') === '' || line.startsWith('#')) continue;
    const bad = (expected: string): UsageError =>
      new UsageError('E_CONFIG', `${file}:${index + 1}: expected ${expected}, found '${line}'`);
    const header = /^\[([^[\]]+)\]\s*$/.exec(line);
    if (header !== null) {
      const name = header[1] ?? '';
      group = groups.get(name) ?? new Map<string, string>();
      groups.set(name, group);
      continue;
    }
    const equals = line.indexOf('=');
    if (equals < 1) throw bad('[group], key=value or a comment');
    if (group === undefined) throw bad('a [group] before the first key');
    group.set(line.slice(0, equals).replace(trailing, ''), line.slice(equals + 1).replace(leading, ''));
  }
  return groups;
}

const escapes: Readonly<Record<string, string>> = { s: ' ', n: '\n', t: '\t', r: '\r', '\\': '\\' };

/** A decoder puts this in the place of bytes that are no UTF-8. */
const UNDECODABLE = '\uFFFD';

/** Throws a UsageError for an unknown escape and for bytes that are no UTF-8, which GLib does not take either. */
export function unescapeValue(value: string, where: string): string {
  if (value.includes(UNDECODABLE)) throw new UsageError('E_CONFIG', `${where}: expected UTF-8, found '${value}'`);
  return value.replace(/\\(.?)/gs, (sequence, letter: string) => {
    const plain = escapes[letter];
    if (plain === undefined) {
      throw new UsageError('E_CONFIG', `${where}: expected one of \\s \\n \\t \\r \\\\, found '${sequence}'`);
    }
    return plain;
  });
}

/** A value as GLib writes it: read back by `unescapeValue`. */
export function escapeValue(value: string): string {
  const special: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\\': '\\\\' };
  const blanks: Readonly<Record<string, string>> = { ' ': '\\s', '\t': '\\t' };
  const first = /^[ \t]*/.exec(value)?.[0] ?? '';
  const rest = value.slice(first.length).replace(/[\n\r\\]/g, (letter) => special[letter] ?? letter);
  return first.replace(/[ \t]/g, (letter) => blanks[letter] ?? letter) + rest;
}

/** GLib's booleans: true, 1, false, 0. Throws a UsageError otherwise. */
export function parseBoolean(text: string, where: string): boolean {
  const value = text.replace(trailing, '');
  if (value === 'true' || value === '1') return true;
  if (value === 'false' || value === '0') return false;
  throw new UsageError('E_CONFIG', `${where}: expected true or false, found '${value}'`);
}

/** qemu-ga's lists: split on commas, blanks kept, empty text is no element. */
export function splitList(value: string): string[] {
  return value === '' ? [] : value.split(',');
}
