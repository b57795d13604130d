// What is no freezer at the other end of its socket: one clear error, in bounded time and memory, and no number that is
// none.
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Duplex } from 'node:stream';
import { FreezerConnection } from '../../../../src/freeze/freezer/client.js';
import { drip, endless } from '../../../support/endless.js';
import { MiB, watchMemory } from '../../../support/memory.js';
import { streamPair } from '../../../support/stream-pair.js';

// Megabytes are read, and the memory is looked at: on a busy machine that takes its time.
vi.setConfig({ testTimeout: 60_000 });

let freezer: FreezerConnection;
let far: Duplex;
let lost: Error[];
let pouredBytes: number;
beforeEach(() => {
  const [near, other] = streamPair();
  far = other;
  far.resume();
  lost = [];
  freezer = new FreezerConnection(near, {
    onExpired() {},
    onThawed() {},
    onLost: (error) => lost.push(error),
  });
});
afterEach(() => {
  freezer.close();
});

async function pour(pieces: Iterable<Buffer> | AsyncIterable<Buffer>): Promise<void> {
  // Of this test: the next one has another.
  const to = far;
  pouredBytes = 0;
  for await (const piece of pieces) {
    if (to.destroyed) return;
    pouredBytes += piece.length;
    to.write(piece);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test.each([
  ['a line without end', 'ok ', 'x', 'expected lines of at most 8192 bytes'],
  ['a long line', `ok ${'x'.repeat(9000)}\n`, 'ok\n', 'expected lines of at most 8192 bytes'],
  ['answers for filesystems without end', '', 'fs 0 thaw 0 1 2 1\n', 'answered for more than 16384 filesystems'],
  ['errors without end', '', 'error state x\n', 'answered error without having been asked'],
  ['empty lines', '', '\n', 'none of its protocol'],
  ['NUL', '', '\0', 'expected lines of at most 8192 bytes'],
])('%s: the connection ends, nothing is held', async (_name, head, unit, problem) => {
  const memory = watchMemory();
  const asked = freezer.freeze(1000).catch((error: unknown) => error);
  await pour(endless(head, unit, 1024 * MiB, memory.look));
  await asked;
  expect(lost).toHaveLength(1);
  expect(lost[0]?.message).toContain(problem);
  expect(pouredBytes).toBeLessThan(2 * MiB);
  memory.look();
  expect(memory.mostBytes).toBeLessThan(8 * MiB);
});

test.each([
  ['freeze', 'ok freeze 1 soon later', () => freezer.freeze(1000)],
  ['freeze', 'ok freeze 1 100', () => freezer.freeze(1000)],
  ['renew', 'ok renew -5', () => freezer.renew(1000)],
  ['renew', `ok renew ${'9'.repeat(400)}`, () => freezer.renew(1000)],
  ['fs', 'ok fs NaN', () => freezer.add(0, 1, '0:0', '/')],
  ['status', 'ok status frozen s o 1 1 0x10 1', () => freezer.status()],
])('%s answered with a number that is none (%s) is an error, and the end', async (verb, line, ask) => {
  const asked = ask();
  far.write(`${line}\n`);
  await expect(asked).rejects.toMatchObject({
    code: 'E_FREEZER',
    outcome: 'unknown',
    message: expect.stringContaining(`answer to ${verb}: expected a number, found`) as string,
  });
  expect(freezer.lost || lost.length > 0 || (await ended())).toBe(true);
});

const ended = async (): Promise<boolean> => {
  await new Promise((resolve) => setImmediate(resolve));
  return freezer.lost;
};

test('a time that is beyond every clock is none of its protocol', async () => {
  const asked = freezer.freeze(1000);
  far.write(`fs 0 freeze 0 1 ${'9'.repeat(400)}\n`);
  await expect(asked).rejects.toMatchObject({ code: 'E_FREEZER_LOST' });
});

test('a pid that is none is no freezer', async () => {
  const asked = freezer.hello();
  far.write('ok hello 1 0x7 5\n');
  await expect(asked).rejects.toMatchObject({ code: 'E_FREEZER_VERSION' });
});

test('a slow answer does not extend the limit', async () => {
  const began = performance.now();
  const asked = freezer.status(200);
  void pour(drip(`ok status idle ${'\\040'.repeat(1000)}`, 5));
  await expect(asked).rejects.toMatchObject({ code: 'E_DEADLINE', outcome: 'unknown' });
  expect(performance.now() - began).toBeLessThan(5000);
});
