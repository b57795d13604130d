// The same bytes to Debian's qemu-ga and to ours; the answers must be the same bytes. What differs on purpose is in
// accepted-differences.ts; an entry there that is stale fails.
import { existsSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { MessageParser } from '../../src/wire/message-parser.js';
import { withPlainNumbers } from '../../src/wire/value.js';
import { acceptedDifferences } from './accepted-differences.js';
import { converse, type Conversation } from './conversation.js';
import { exchanges, type Exchange } from './exchanges.js';
import { ourAgent, qemuGa, realAgent, type Peer } from './peers.js';

const missing = !existsSync(qemuGa);
if (missing && process.env['FSB_REQUIRED'] === 'all') throw new Error(`${qemuGa} is missing: nothing to compare with`);

test('every exchange has a name of its own, and there are enough of them', () => {
  const names = exchanges.map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
  expect(names.length).toBeGreaterThanOrEqual(120);
});

test('every accepted difference names an exchange', () => {
  const names = new Set(exchanges.map(({ name }) => name));
  expect(acceptedDifferences.filter(({ exchange }) => !names.has(exchange))).toEqual([]);
});

describe.skipIf(missing)(`answers as ${qemuGa} does${missing ? ' (not installed)' : ''}`, () => {
  const peers: Peer[] = [];
  let real: Conversation;
  let ours: Conversation;
  beforeAll(async () => {
    const theirs = await realAgent();
    peers.push(theirs);
    const own = await ourAgent();
    peers.push(own);
    real = converse(theirs.stream);
    ours = converse(own.stream);
  });
  afterAll(async () => {
    for (const peer of peers) await peer[Symbol.asyncDispose]();
  });

  // One after another on the same two connections: what an exchange leaves behind meets the next one.
  test.each(exchanges)('$name', async (exchange) => {
    const expected = await real.exchange(exchange);
    const found = await ours.exchange(exchange);
    const accepted = acceptedDifferences.find((difference) => difference.exchange === exchange.name);
    if (exchange.compare === 'values') {
      expect(values(exchange, found)).toEqual(values(exchange, expected));
    } else if (accepted !== undefined) {
      expect(expected, 'a stale entry of accepted-differences.ts').not.toBe(found);
      expect(expected).toContain(accepted.real);
      expect(found).toBe(expected.replace(accepted.real, accepted.ours));
    } else {
      expect(shorten(found)).toBe(shorten(expected));
      expect(found === expected).toBe(true);
    }
  });
});

/** The first difference of two megabytes is not worth printing them. */
const shorten = (text: string): string =>
  text.length > 4000 ? `${text.slice(0, 4000)}... ${text.length} bytes` : text;

function values({ apart = [] }: Exchange, answer: string): unknown {
  return new MessageParser()
    .feed(Buffer.from(answer, 'latin1'))
    .map((message) => (message.kind !== 'value' ? message.desc : without(apart, withPlainNumbers(message.value))));
}

function without(names: readonly string[], value: unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => without(names, item));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([name]) => !names.includes(name))
      .map(([name, member]) => [name, without(names, member)]),
  );
}
