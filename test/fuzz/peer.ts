// Sends the same inputs to Debian's qemu-ga and to ours with its wording, and groups by kind the answers that differ. Only
// inputs that the guard of test/conformance lets through are sent; each ends with a resync.
import { MessageParser } from '../../src/wire/message-parser.js';
import { isJsonObject, type JsonValue } from '../../src/wire/value.js';
import { encode } from '../../src/wire/encode.js';
import { converse } from '../conformance/conversation.js';
import { makeGuard } from '../conformance/harmless.js';
import { ourAgent, realAgent } from '../conformance/peers.js';
import { piecesOf, readCorpus } from './corpus.js';
import { makeInput, parts } from './input.js';
import { acceptedKinds, type AcceptedKind } from './peer-differences.js';
import { makeRandom } from './random.js';

interface Difference {
  /** The number that repeats it. */
  readonly input: number;
  readonly sent: string;
  readonly real: string;
  readonly ours: string;
}

export interface Comparison {
  readonly inputs: number;
  /** Not sent: might have asked for something that is not harmless. */
  readonly withheld: number;
  readonly same: number;
  readonly accepted: ReadonlyMap<AcceptedKind, number>;
  /** By kind, in the order in which they were found. */
  readonly unknown: ReadonlyMap<string, readonly Difference[]>;
}

/** Each side's answer must come within the conversation's own limit. */
export async function compareWithPeer({ count, seed }: { count: number; seed: number }): Promise<Comparison> {
  await using theirs = await realAgent();
  await using own = await ourAgent();
  const real = converse(theirs.stream);
  const ours = converse(own.stream);
  const known = readCorpus('qga-replies').filter(({ name }) => name.startsWith('guest-'));
  const pieces = [...piecesOf(readCorpus('qga-requests'), 'sent'), ...piecesOf(known, 'sent')];
  const accepted = new Map<AcceptedKind, number>(acceptedKinds.map((kind) => [kind, 0]));
  const unknown = new Map<string, Difference[]>();
  let withheld = 0;
  let same = 0;
  const examples = acceptedKinds.map(({ example }) => Buffer.from(example, 'latin1'));
  for (let input = -examples.length; input < count; input++) {
    const example = examples[input + examples.length];
    const fuzzed = makeInput(makeRandom(seed, 'peer', Math.max(0, input)), pieces);
    const made = example === undefined ? fuzzed : { ...fuzzed, bytes: example };
    if (!isHarmless(made.bytes)) {
      withheld++;
      continue;
    }
    const sends = parts(made).map((part) => part.toString('latin1'));
    const exchange = { name: `input ${input} of seed ${seed}`, sends };
    const [expected, found] = await Promise.all([real.exchange(exchange), ours.exchange(exchange)]);
    const pairs = differing(expected, found);
    if (pairs.length === 0) same++;
    for (const [one, other] of pairs) {
      const kind = acceptedKinds.find((known) => known.matches(one, other));
      if (kind !== undefined) {
        accepted.set(kind, (accepted.get(kind) ?? 0) + 1);
        continue;
      }
      const name = `${kindOf(one)}  |  ${kindOf(other)}`;
      const list = unknown.get(name) ?? [];
      list.push({ input, sent: made.bytes.toString('latin1'), real: one, ours: other });
      unknown.set(name, list);
    }
  }
  return { inputs: count, withheld, same, accepted, unknown };
}

function isHarmless(bytes: Uint8Array): boolean {
  try {
    makeGuard()(bytes);
    return true;
  } catch {
    return false;
  }
}

/** Lines that differ, side by side; if one side has more, all from there on is one pair. */
function differing(real: string, ours: string): (readonly [string, string])[] {
  if (real === ours) return [];
  const one = real.split('\n');
  const other = ours.split('\n');
  if (one.length !== other.length) return [[real, ours]];
  return one.flatMap((line, at) => {
    const against = other[at] ?? '';
    return line === against ? [] : [[line, against] as const];
  });
}

/** Class and words of an error with what is quoted left out, or the shape of a result. */
function kindOf(line: string): string {
  const messages = new MessageParser().feed(Buffer.from(`${line}\n`, 'latin1'));
  return messages.map((message) => (message.kind === 'value' ? shape(message.value) : 'no JSON')).join(' + ');
}

function shape(value: JsonValue): string {
  if (!isJsonObject(value)) return typeof value;
  const { error } = value;
  if (!isJsonObject(error)) return `return ${encode(value['return']).slice(0, 60)}`;
  return encode(error).replace(/'.*'/s, `'...'`);
}
