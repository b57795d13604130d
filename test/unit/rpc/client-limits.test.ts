// A hostile agent's answers end with one clear error, in bounded time and memory, and the next good answer is taken.
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { RpcClient } from '../../../src/rpc/client.js';
import { drip, endless } from '../../support/endless.js';
import { MiB, watchMemory } from '../../support/memory.js';
import { hostilePeer, type HostilePeer } from './hostile-peer.js';

// Megabytes are read, and the memory is looked at: on a busy machine that takes its time.
vi.setConfig({ testTimeout: 60_000 });

let peer: HostilePeer;
let client: RpcClient;
beforeEach(() => {
  peer = hostilePeer();
  client = new RpcClient(peer.stream, { peer: 'agent', syncCommand: 'guest-sync-delimited' });
});
afterEach(async () => {
  await client.close();
});

const limit = { timeoutMs: 20_000 };
const answer = (bytes: Iterable<Uint8Array> | AsyncIterable<Uint8Array>): void => {
  peer.answers.push(() => bytes);
};
const good = (): void => {
  peer.answers.push((id) => [Buffer.from(`{"return": "good", "id": "${id}"}\n`)]);
};

describe('a reply beyond the limits is one error at once, in bounded memory, and the next one is taken:', () => {
  // The last number: enough to be beyond. What comes after is no JSON any more, and takes the time of the test.
  test.each([
    ['one long text', '{"return": "', 'x', 10 * MiB],
    ['escapes', '{"return": "', '\\u00e9', 10 * MiB],
    ['characters of many bytes', '{"return": "', '\xe2\x82\xac', 10 * MiB],
    ['empty lists', '{"return": [1', ',[]', 600_000],
    ['empty objects', '{"return": [1', ',{}', 600_000],
    ['objects with a member', '{"return": [1', ',{"a":1}', 760_000],
    ['members', '{"return": 1', `,"${'k'.repeat(20)}":0`, 3_500_000],
    ['numbers', '{"return": [1', ',1', 550_000],
    ['long integers', '{"return": [1', ',12345678901234567890', 5_700_000],
    ['fractions', '{"return": [1', ',1.5', 1_150_000],
    ['short texts', '{"return": [1', ',"abcdefgh"', 3_100_000],
    ['lists in lists', '{"return": ', '[', 100_000],
    ['objects in objects', '{"return": ', '{"a":', 300_000],
    ['one long number', '{"return": ', '1', 10 * MiB],
    ['one long word', '{"return": ', 'a', 10 * MiB],
  ])('%s', async (_name, head, unit, totalBytes) => {
    const memory = watchMemory();
    answer(endless(head, unit, totalBytes, memory.look));
    await expect(client.call('guest-info', {}, limit)).rejects.toMatchObject({
      code: 'E_REPLY_LIMIT',
      outcome: 'unknown',
      message: expect.stringMatching(
        /^agent: guest-info: the reply is too large: expected at most \d+ bytes/,
      ) as string,
    });
    good();
    expect(await client.call('guest-ping', {}, limit)).toBe('good');
    expect(memory.mostBytes).toBeLessThan(48 * MiB);
  });
});

test('a reply within the limits that takes much memory is an error too', async () => {
  const memory = watchMemory();
  peer.answers.push((id) => [...endless('{"return": [1', ',{}', 300_000), Buffer.from(`], "id": "${id}"}`)]);
  await expect(client.call('guest-info', {}, limit)).resolves.toBeDefined();
  peer.answers.push((id) => [...endless('{"return": [1', ',{}', 450_000), Buffer.from(`], "id": "${id}"}`)]);
  const failed = expect(client.call('guest-info', {}, limit)).rejects;
  await failed.toMatchObject({ code: 'E_REPLY_LIMIT', message: expect.stringContaining('bytes of memory') as string });
  memory.look();
  expect(memory.mostBytes).toBeLessThan(48 * MiB);
});

describe('what never ends ends the connection:', () => {
  test.each([
    ['white space', '', ' \n'],
    ['replies to nobody', '', '{"return": {}, "id": "another"}\n'],
    ['errors to nobody', '', '{"error": {"class": "C", "desc": "d"}}\n'],
    ['no JSON', '', '}'],
    ['0xFF', '', '\xff'],
  ])('%s', async (_name, head, unit) => {
    const memory = watchMemory();
    answer(endless(head, unit, 1024 * MiB, memory.look));
    await expect(client.call('guest-info', {}, limit)).rejects.toMatchObject({
      code: 'E_FLOOD',
      outcome: 'unknown',
      message:
        'agent: guest-info: more than 33554432 bytes or 131072 messages came that were not asked for, connection closed',
    });
    expect(client.open).toBe(false);
    expect(peer.closed).toBe(true);
    expect(peer.sentBytes).toBeLessThan(34 * MiB);
    expect(memory.mostBytes).toBeLessThan(16 * MiB);
    await expect(client.call('guest-ping', {}, limit)).rejects.toMatchObject({ code: 'E_FLOOD', outcome: 'none' });
  });
});

test('a slow reply does not extend the limit', async () => {
  peer.answers.push((id) => drip(`{"return": "${'slow '.repeat(1000)}", "id": "${id}"}`, 5));
  const began = performance.now();
  await expect(client.call('guest-info', {}, { timeoutMs: 200 })).rejects.toMatchObject({
    code: 'E_DEADLINE',
    outcome: 'unknown',
  });
  expect(performance.now() - began).toBeLessThan(5000);
});

test('a reply to something else, or without return and error, is one clear error', async () => {
  answer([Buffer.from('{"return": {}, "id": "wrong"}{"error": {"class": "C", "desc": "not you"}}')]);
  await expect(client.call('a', {}, { timeoutMs: 100 })).rejects.toMatchObject({
    code: 'E_DEADLINE',
    message: 'agent: a (the peer says: not you): no answer within 100 ms',
  });
  peer.answers.push((id) => [Buffer.from(`{"id": "${id}"}`)]);
  await expect(client.call('b', {}, limit)).rejects.toMatchObject({
    code: 'E_REPLY',
    message: expect.stringContaining('expected a return or an error') as string,
  });
});

test('a long error is cut', async () => {
  peer.answers.push((id) => [
    Buffer.from(`{"error": {"class": "${'c'.repeat(9000)}", "desc": "${'d'.repeat(100_000)}"}, "id": "${id}"}`),
  ]);
  const error: unknown = await client.call('a', {}, limit).catch((reason: unknown) => reason);
  expect(error).toMatchObject({ class: 'c'.repeat(4096), desc: 'd'.repeat(4096) });
});

test('half of something after a reply does not spoil the next one', async () => {
  for (const rest of ['-', '"', '{', '[[', 'tru', '\\', '\n{"a":']) {
    peer.answers.push((id) => [Buffer.from(`{"return": "first", "id": "${id}"}${rest}`)]);
    expect(await client.call('a', {}, limit)).toBe('first');
    good();
    expect(await client.call('b', {}, limit), `after ${rest}`).toBe('good');
  }
});
