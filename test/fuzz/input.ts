// Makes one input: bytes, how they are cut, and a number for all else that a target leaves to chance. Two thirds and more
// are made from recorded transcripts, the rest from JSON's grammar and from nothing.
import { makeRandom, type Random } from './random.js';

export interface Input {
  readonly bytes: Buffer;
  /** Made from a recorded transcript. */
  readonly recorded: boolean;
  readonly cut: 'whole' | 'bytes' | 'pieces';
  /** Seed of the generator of a target's own choices. */
  readonly choices: number;
}

export function makeInput(random: Random, pieces: readonly Buffer[]): Input {
  const way = random.below(20);
  const made =
    way < 16
      ? mutate(random, random.pick(pieces), pieces, random.pick([0, 1, 1, 1, 1, 2, 2, 3, 4, 10]))
      : way < 18
        ? Buffer.from(jsonText(random, 0), 'latin1')
        : Buffer.from(Array.from({ length: random.below(random.once(20) ? 2000 : 60) }, () => random.below(256)));
  return {
    bytes: made.subarray(0, INPUT_LIMIT),
    recorded: way < 16,
    cut: random.pick(['whole', 'whole', 'whole', 'pieces', 'pieces', 'pieces', 'pieces', 'bytes']),
    choices: random.below(2 ** 32),
  };
}

/** The parts in which an input arrives. The same for the same input. */
export function parts({ bytes, cut, choices }: Pick<Input, 'bytes' | 'cut' | 'choices'>): readonly Buffer[] {
  if (bytes.length === 0 || cut === 'whole') return [bytes];
  const random = makeRandom('parts', choices);
  const found: Buffer[] = [];
  for (let from = 0; from < bytes.length;) {
    // Single bytes at the beginning only: with a thousand turns of the loop for one input there would be time for few.
    const length = cut === 'bytes' && from < 50 ? 1 : 1 + random.below(Math.max(2, bytes.length >> 1));
    found.push(bytes.subarray(from, from + length));
    from += length;
  }
  return found;
}

const INPUT_LIMIT = 32 * 1024;

const words = [
  ...['{', '}', '[', ']', ':', ',', '"', "'", '\\', '\xff', '\xfe', '\0', '\x1b', '\n', '\r\n', '\t', ' ', '%', '\x7f'],
  ...['null', 'true', 'false', 'nul', 'NaN', '-', '0', '-0', '01', '1.0', '1e2', '1e999', '-1e-999', '0x1', '.5', '1.'],
  ...['9223372036854775807', '-9223372036854775808', '9223372036854775808', '18446744073709551616', '4294967296'],
  ...['"id"', '"execute"', '"arguments"', '"return"', '"error"', '"class"', '"desc"', '"event"', '"__proto__"', '@ID@'],
  ...['"toString"', '"constructor"', '{"return": {}}', '{"error": {}}', '{"return": {}, "id": "@ID@"}', '\xff{', '}}'],
  ...['\\u0000', '\\ud800', '\\udc00', '\\ud83d\\ude00', '\\uffff', '\\x', '\xc0\x80', '\xed\xa0\x80', '\xef\xbf\xbe'],
  ...[
    '\xf4\x90\x80\x80',
    '\xe2\x82',
    '\xc3\xa9',
    '\x1b[2J',
    '\x9b',
    'ok ',
    'error ',
    'fs ',
    'event ',
    '\\040',
    '\\400',
  ],
];
const numbers = [
  '0',
  '-1',
  '1.5',
  '1e5',
  '2147483648',
  '9007199254740993',
  '-9223372036854775809',
  '1e400',
  '""',
  '[]',
];

function mutate(random: Random, origin: Buffer, pieces: readonly Buffer[], times: number): Buffer {
  let bytes = origin;
  for (let time = 0; time < times; time++) {
    const at = random.below(bytes.length + 1);
    const to = Math.min(bytes.length, at + random.below(random.once(4) ? 200 : 8) + 1);
    const before = bytes.subarray(0, at);
    const word = Buffer.from(random.pick(words), 'latin1');
    switch (random.below(11)) {
      case 0:
        bytes = Buffer.concat([before, Buffer.of(random.below(256)), bytes.subarray(at + 1)]);
        break;
      case 1:
        bytes = Buffer.from(bytes);
        if (at < bytes.length) bytes[at] = (bytes[at] ?? 0) ^ (1 << random.below(8));
        break;
      case 2:
      case 3:
        bytes = Buffer.concat([before, word, bytes.subarray(at)]);
        break;
      case 4:
        bytes = Buffer.concat([before, word, bytes.subarray(to)]);
        break;
      case 5:
        bytes = Buffer.concat([before, bytes.subarray(to)]);
        break;
      case 6:
        bytes = Buffer.concat([bytes.subarray(0, to), bytes.subarray(at)]);
        break;
      case 7: {
        const other = random.pick(pieces);
        bytes = Buffer.concat([before, other.subarray(random.below(other.length + 1)), bytes.subarray(to)]);
        break;
      }
      case 8:
        bytes = random.once(3) ? before : bytes.subarray(at);
        break;
      case 9:
        bytes = repeat(random, bytes, at);
        break;
      default:
        bytes = otherNumber(random, bytes);
    }
  }
  return bytes;
}

/** One byte, or brackets, many times. */
function repeat(random: Random, bytes: Buffer, at: number): Buffer {
  const times = random.once(50) ? random.below(4000) : random.below(60);
  if (random.once(2)) {
    const [open, close] = random.pick([
      ['[', ']'],
      ['{"a":', '}'],
    ]);
    return Buffer.concat([Buffer.from(open.repeat(times)), bytes, Buffer.from(close.repeat(times))]);
  }
  const unit = Buffer.from(random.pick(words), 'latin1').toString('latin1');
  return Buffer.concat([bytes.subarray(0, at), Buffer.from(unit.repeat(times), 'latin1'), bytes.subarray(at)]);
}

function otherNumber(random: Random, bytes: Buffer): Buffer {
  const text = bytes.toString('latin1');
  const found = [...text.matchAll(/-?\d+/g)];
  if (found.length === 0) return bytes;
  const { 0: digits, index } = random.pick(found);
  return Buffer.from(text.slice(0, index) + random.pick(numbers) + text.slice(index + digits.length), 'latin1');
}

function jsonText(random: Random, depth: number): string {
  const space = random.pick(['', '', ' ', '\n']);
  switch (random.below(depth > 5 ? 4 : 7)) {
    case 0:
      return random.pick(numbers) + space;
    case 1:
      return random.pick(['null', 'true', 'false', '1', '-7', '1.25', 'e', "'"]) + space;
    case 2:
    case 3:
      return `"${Array.from({ length: random.below(5) }, () => random.pick(['a', '\\n', '\xc3\xa9', '\\u0041', ' ', '\\"', '}'])).join('')}"`;
    case 4:
      return `[${list(random, () => jsonText(random, depth + 1))}]`;
    default:
      return `{${list(random, () => `${random.once(20) ? '1' : `"${random.pick(['execute', 'id', 'arguments', 'return', 'error', 'a', 'b'])}"`}:${space}${jsonText(random, depth + 1)}`)}}`;
  }
}

const list = (random: Random, item: () => string): string =>
  Array.from({ length: random.below(4) }, item).join(random.once(30) ? ' ' : ',');
