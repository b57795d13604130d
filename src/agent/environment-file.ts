// Parses the files in which distributions keep a daemon's settings: NAME=value, quoted or not. RHEL's and SUSE's are
// read by systemd (systemd.exec(5), EnvironmentFile=), Debian's was sourced by a shell: here both are read and nothing
// in them is run. What the names mean: distribution-settings.ts.
import { UsageError } from '../errors.js';

interface Assignment {
  readonly key: string;
  readonly value: string;
  readonly line: number;
  /** A shell would have expanded a part of it: `$NAME`, `$(...)`, backticks. */
  readonly expands: boolean;
}

export interface EnvironmentFile {
  readonly assignments: readonly Assignment[];
  /** Lines that assign nothing: commands of a shell. */
  readonly others: readonly { readonly line: number; readonly text: string }[];
}

const assignment = /(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=/y;
const restOfLine = /[^\n]*/y;

/** Throws a UsageError for a quote that is never closed. `file` is a name for messages. */
export function parseEnvironmentFile(text: string, file: string): EnvironmentFile {
  const assignments: Assignment[] = [];
  const others: { line: number; text: string }[] = [];
  const lineAt = (at: number): number => text.slice(0, at).split('\n').length;
  let at = 0;
  const match = (pattern: RegExp): RegExpExecArray | undefined => {
    pattern.lastIndex = at;
    const found = pattern.exec(text) ?? undefined;
    if (found !== undefined) at = pattern.lastIndex;
    return found;
  };
  while (at < text.length) {
    if (/\s/.test(text.charAt(at))) {
      at++;
      continue;
    }
    const start = at;
    if (/[#;]/.test(text.charAt(at))) {
      match(restOfLine);
      continue;
    }
    const key = match(assignment)?.[1];
    if (key === undefined) {
      others.push({ line: lineAt(start), text: (match(restOfLine)?.[0] ?? '').trimEnd() });
      continue;
    }
    const scanned = scanValue(text, at);
    if (scanned === undefined) {
      throw new UsageError('E_CONFIG', `${file}:${lineAt(start)}: ${key}: expected a closing quote, found none`);
    }
    at = scanned.end;
    assignments.push({ key, value: scanned.value, line: lineAt(start), expands: scanned.expands });
  }
  return { assignments, others };
}

/**
 * The value from behind the `=` to the end of the line, without a comment that follows a blank. Undefined if a quote is
 * never closed.
 */
function scanValue(
  text: string,
  from: number,
): { readonly value: string; readonly end: number; readonly expands: boolean } | undefined {
  let value = '';
  // Blanks at the end count only where they are quoted.
  let kept = 0;
  let expands = false;
  let quote = '';
  let at = from;
  for (; at < text.length; at++) {
    const letter = text.charAt(at);
    const next = text.charAt(at + 1);
    if (quote === '' && letter === '\n') break;
    if (quote === '' && letter === '#' && /\s/.test(text.charAt(at - 1))) {
      while (at < text.length && text.charAt(at) !== '\n') at++;
      break;
    }
    if (quote === '' ? letter === '"' || letter === "'" : letter === quote) {
      quote = quote === '' ? letter : '';
      kept = value.length;
      continue;
    }
    if (letter === '\\' && quote !== "'" && next !== '') {
      at++;
      if (next === '\n') continue;
      value += quote === '' || /["\\`$]/.test(next) ? next : `\\${next}`;
      kept = value.length;
      continue;
    }
    if (quote !== "'" && (letter === '$' || letter === '`')) expands = true;
    value += letter;
    if (quote !== '' || !/\s/.test(letter)) kept = value.length;
  }
  return quote === '' ? { value: value.slice(0, kept), end: at, expands } : undefined;
}

/** The words of a value, as systemd makes them of `$NAME`: split at blanks outside quotes, the quotes taken away. */
export function splitWords(value: string): readonly string[] {
  const words = value.match(/(?:"[^"]*"|'[^']*'|[^\s"'])+/g) ?? [];
  return words.map((word) => word.replace(/"([^"]*)"|'([^']*)'/g, '$1$2'));
}
