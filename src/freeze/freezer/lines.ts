// Reads and writes the freezer's lines (qga/freezer/README.md). Pure. Which line answers which request: exchange.ts.
import { decodeOctal, pathBytes } from '../../linux/path-text.js';

/** Escapes a free text (a path, an owner) to one word. */
export function freezerWord(text: string): string {
  if (text === '') return '\\';
  return [...pathBytes(text)]
    .map((byte) =>
      byte >= 0x21 && byte <= 0x7e && byte !== 0x5c
        ? String.fromCharCode(byte)
        : `\\${byte.toString(8).padStart(3, '0')}`,
    )
    .join('');
}

/** The text of an escaped word. */
export function freezerText(word: string): string {
  return word === '\\' ? '' : decodeOctal(word);
}

type FilesystemVerb = 'sync' | 'freeze' | 'thaw';

/**
 * What the kernel answered for one filesystem. Times are in milliseconds on CLOCK_MONOTONIC; 0 if it was not reached.
 */
export interface FilesystemAnswer {
  readonly index: number;
  readonly verb: FilesystemVerb;
  /** 0 if it was done. */
  readonly errno: number;
  readonly startMs: number;
  readonly endMs: number;
  /** True of a thaw if this session's FIFREEZE had returned 0. */
  readonly ours: boolean;
}

/** A filesystem on which the kernel has not returned a call. Later sessions work without it. */
export interface HungFilesystem {
  readonly mountpoint: string;
  /**
   * The call that has not returned. When a `freeze` returns, it is thawed at once; until a `thaw` returns, it is
   * frozen. Whoever writes there waits for the end of either.
   */
  readonly call: 'open' | 'sync' | 'freeze' | 'thaw';
  /** When that call began, on CLOCK_MONOTONIC. */
  readonly sinceMs: number;
  /** The session that gave it up, or that a freezer which died had frozen it for. */
  readonly session: string;
}

export type FreezerLine =
  | { readonly kind: 'ok'; readonly verb: string; readonly words: readonly string[] }
  | { readonly kind: 'error'; readonly code: string; readonly words: readonly string[]; readonly text: string }
  | { readonly kind: 'event'; readonly name: string }
  | { readonly kind: 'hung'; readonly hung: HungFilesystem }
  | { readonly kind: 'filesystem'; readonly answer: FilesystemAnswer };

/** Undefined if the line is not one of the protocol. */
export function parseFreezerLine(line: string): FreezerLine | undefined {
  const [first, second, ...rest] = line.split(' ');
  if (second === undefined) return undefined;
  switch (first ?? '') {
    case 'ok':
      return { kind: 'ok', verb: second, words: rest };
    case 'error':
      return { kind: 'error', code: second, words: rest.slice(0, -1), text: freezerText(rest.at(-1) ?? '\\') };
    case 'event':
      return { kind: 'event', name: second };
    case 'fs':
      return filesystemLine(second, rest);
    case 'hung':
      return hungLine(second, rest);
    default:
      return undefined;
  }
}

const VERBS: readonly FilesystemVerb[] = ['sync', 'freeze', 'thaw'];

function filesystemLine(index: string, words: readonly string[]): FreezerLine | undefined {
  const verb = VERBS.find((known) => known === words[0]);
  const numbers = [index, ...words.slice(1)];
  if (verb === undefined || numbers.length < 4 || !numbers.every((word) => /^\d{1,19}$/.test(word))) return undefined;
  const [place = 0, errno = 0, start = 0, end = 0, ours = 0] = numbers.map(Number);
  return {
    kind: 'filesystem',
    answer: { index: place, verb, errno, startMs: start / 1e6, endMs: end / 1e6, ours: ours === 1 },
  };
}

const HUNG_CALLS: readonly HungFilesystem['call'][] = ['open', 'sync', 'freeze', 'thaw'];

function hungLine(word: string, [since = '', session, path]: readonly string[]): FreezerLine | undefined {
  const call = HUNG_CALLS.find((known) => known === word);
  if (call === undefined || !/^\d{1,19}$/.test(since) || session === undefined || path === undefined) return undefined;
  const [mountpoint, owner] = [freezerText(path), freezerText(session)];
  return { kind: 'hung', hung: { mountpoint, call, sinceMs: Number(since) / 1e6, session: owner } };
}
