// The lexer and parser of the wire: the same messages however the bytes are cut, the same values as JSON.parse where
// both take the text, values that can be written and read again, and the next message after 0xFF, whatever came before.
import { isDeepStrictEqual } from 'node:util';
import { encodeLine } from '../../../src/wire/encode.js';
import { MessageParser, qemuLimits, type WireLimits, type WireMessage } from '../../../src/wire/message-parser.js';
import { JsonFloat, isJsonObject, type JsonValue } from '../../../src/wire/value.js';
import { piecesOf, readCorpus } from '../corpus.js';
import { parts, type Input } from '../input.js';
import { check, type Target, type Verdict } from '../target.js';

const next = Buffer.from('\xff{"next": [1]}', 'latin1');
const small: WireLimits = { tokenBytes: 500, tokens: 40, nesting: 6, valueBytes: 1500 };

export const wire: Target = {
  name: 'wire',
  pieces: () => [
    ...piecesOf(readCorpus('qga-requests'), 'sent'),
    ...piecesOf(readCorpus('qga-requests'), 'answered'),
    ...piecesOf(readCorpus('qmp'), 'answered'),
  ],
  start: () => ({
    run: (input) => Promise.resolve(run(input)),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  }),
};

function run(input: Input): Verdict {
  const messages = parse(input, qemuLimits);
  parse(input, small);
  for (const message of messages) if (message.kind === 'value') writeAndRead(message.value);
  compareWithJsonParse(input.bytes);
  return messages[0]?.kind === 'value' ? 'accepted' : 'rejected';
}

/** The messages before the next good one. */
function parse(input: Input, limits: WireLimits): readonly WireMessage[] {
  const whole = new MessageParser(limits).feed(Buffer.concat([input.bytes, next]));
  const cut = new MessageParser(limits);
  const found = [...parts(input), next].flatMap((part) => cut.feed(part));
  check(isDeepStrictEqual(found, whole), 'other messages when the bytes come in pieces');
  const last = whole.at(-1);
  check(
    last?.kind === 'value' && isDeepStrictEqual(plain(last.value), new Map([['next', [1]]])),
    'the next message is lost',
  );
  check(whole.at(-2)?.kind === 'error', '0xFF is no error');
  return whole.slice(0, -2);
}

function writeAndRead(value: JsonValue): void {
  const [read, ...more] = new MessageParser({ ...qemuLimits, nesting: 2000 }).feed(encodeLine([value]));
  check(more.length === 0 && read?.kind === 'value', 'what is written cannot be read');
  check(isDeepStrictEqual(plain(read.value), plain([value])), 'what is written is read as something else');
}

const strangers = /duplicate key|Unicode character|invalid UTF-8|nesting/;

function compareWithJsonParse(bytes: Buffer): void {
  const text = bytes.toString('utf8');
  if (!Buffer.from(text, 'utf8').equals(bytes) || text.includes('\u{feff}')) return;
  // QEMU's lexer knows no exponent of a zero without a point.
  if (/(?<![\d.])0[eE]/.test(text)) return;
  const [found, ...more] = new MessageParser().feed(Buffer.concat([bytes, Buffer.from(' ')]));
  let expected: unknown;
  try {
    expected = JSON.parse(text);
  } catch {
    const single = more.length === 0 && found?.kind === 'value';
    const apart = text.includes("'") || endsInside(Buffer.concat([bytes, Buffer.from(' ')]));
    check(!single || apart, 'takes for one value what JSON.parse does not');
    return;
  }
  if (found?.kind === 'error' && strangers.test(found.desc)) return;
  check(more.length === 0 && found?.kind === 'value', () => `does not take what JSON.parse takes: ${describe(found)}`);
  check(isDeepStrictEqual(plain(found.value), copy(expected)), 'another value than JSON.parse gives');
}

/** Something incomplete follows the first value: only the next bytes tell. */
function endsInside(bytes: Buffer): boolean {
  const parser = new MessageParser();
  parser.feed(bytes);
  return !parser.atRest;
}

const describe = (message: WireMessage | undefined): string =>
  message === undefined ? 'nothing' : 'desc' in message ? message.desc : message.kind;

/** Numbers as numbers, objects with a prototype. */
function plain(value: JsonValue): unknown {
  if (value instanceof JsonFloat) return value.value + 0;
  if (typeof value === 'bigint') return Number(value);
  if (Array.isArray(value)) return value.map(plain);
  if (!isJsonObject(value)) return value;
  return new Map(Object.entries(value).map(([name, member]) => [name, plain(member)]));
}

function copy(value: unknown): unknown {
  if (typeof value === 'number') return value + 0;
  if (Array.isArray(value)) return value.map(copy);
  if (typeof value !== 'object' || value === null) return value;
  return new Map(Object.entries(value).map(([name, member]) => [name, copy(member)]));
}
