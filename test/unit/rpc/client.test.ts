// The client against peers that are slow, mad or hostile: it never waits for ever, never takes another's reply for its
// own, and says whether a request may have been carried out.
import { afterEach, describe, expect, test } from 'vitest';
import { BridgeError, DeadlineError, UnreachableError } from '../../../src/errors.js';
import { RpcClient } from '../../../src/rpc/client.js';
import { RemoteError } from '../../../src/rpc/errors.js';
import type { JsonObject, JsonValue } from '../../../src/wire/value.js';
import { argument, scriptedPeer, type Script, type ScriptedPeer } from './scripted-peer.js';

let client: RpcClient;
let peer: ScriptedPeer;
function start(script: Script, options?: { ownSync: boolean }): void {
  peer = scriptedPeer(script, options);
  client = new RpcClient(peer.stream, { peer: 'agent', syncCommand: 'guest-sync-delimited' });
}
afterEach(async () => {
  await client.close();
});

const limit = { timeoutMs: 2000 };
const short = { timeoutMs: 60 };
const id = (request: JsonObject): JsonValue | undefined => request['id'];

describe('a call', () => {
  test('finds its place first, then gives back what was returned', async () => {
    start((request, to) => to.reply({ return: argument(request, 'x'), id: id(request) }));
    expect(await client.call('echo', { x: [1, 'é'] }, limit)).toEqual([1, 'é']);
    expect(await client.call('echo', { x: 9223372036854775807n }, limit)).toBe(9223372036854775807n);
    expect(peer.received).toEqual(['?', 'guest-sync-delimited', 'echo', 'echo']);
  });

  test('throws what the peer refused', async () => {
    start((request, to) => to.reply({ id: id(request), error: { class: 'CommandNotFound', desc: 'The command x' } }));
    await expect(client.call('x', {}, limit)).rejects.toMatchObject({
      class: 'CommandNotFound',
      desc: 'The command x',
    });
    await expect(client.call('x', {}, limit)).rejects.toBeInstanceOf(RemoteError);
  });

  test('waits for the one before it', async () => {
    const order: JsonValue[] = [];
    start(async (request, to) => {
      order.push(request['execute'] ?? null);
      await new Promise((resolve) => setTimeout(resolve, 10));
      order.push('done');
      await to.reply({ return: 1, id: id(request) });
    });
    await Promise.all([client.call('a', {}, limit), client.call('b', {}, limit)]);
    expect(order).toEqual(['a', 'done', 'b', 'done']);
  });

  test('that never got its turn has done nothing', async () => {
    start(() => undefined);
    const first = client.call('a', {}, limit).catch(() => undefined);
    await expect(client.call('b', {}, short)).rejects.toMatchObject({ name: 'DeadlineError', outcome: 'none' });
    await client.close();
    await first;
    expect(peer.received).not.toContain('b');
  });
});

describe('a lost reply', () => {
  test('leaves the outcome unknown', async () => {
    start(() => undefined);
    const error = await client.call('freeze', {}, short).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(DeadlineError);
    expect(error).toMatchObject({ outcome: 'unknown', message: 'agent: freeze: no answer within 60 ms' });
  });

  test('is not taken for the answer to the next call', async () => {
    let late: JsonValue | undefined;
    start(async (request, to) => {
      if (request['execute'] === 'freeze') {
        late = id(request);
        return;
      }
      await to.reply({ return: 'late', id: late });
      await to.reply({ return: 'foreign', id: 'somebody else' });
      await to.reply({ return: 'nobody' });
      await to.reply({ return: 'mine', id: id(request) });
    });
    await expect(client.call('freeze', {}, short)).rejects.toMatchObject({ outcome: 'unknown' });
    expect(await client.call('status', {}, limit)).toBe('mine');
    expect(peer.received).toEqual(['?', 'guest-sync-delimited', 'freeze', '?', 'guest-sync-delimited', 'status']);
  });

  test('is resynced past half a reply', async () => {
    start(async (request, to) => {
      if (request['execute'] === 'freeze') await to.say('{"return": {"text": "never fini');
      else await to.reply({ return: 1, id: id(request) });
    });
    await expect(client.call('freeze', {}, short)).rejects.toBeInstanceOf(DeadlineError);
    expect(await client.call('status', {}, limit)).toBe(1);
  });

  test('tells what the peer said meanwhile', async () => {
    start((_request, to) => to.reply({ error: { class: 'GenericError', desc: 'JSON parse error, stray' } }));
    await expect(client.call('x', {}, short)).rejects.toThrow(
      'agent: x (the peer says: JSON parse error, stray): no answer within 60 ms',
    );
  });

  test('given up by signal leaves the outcome unknown', async () => {
    start(() => undefined);
    const controller = new AbortController();
    const call = client.call('freeze', {}, { ...limit, signal: controller.signal });
    setTimeout(() => {
      controller.abort();
    }, 20);
    const error = await call.catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(BridgeError);
    expect(error).toMatchObject({ code: 'E_ABORTED', outcome: 'unknown' });
    await expect(client.call('x', {}, { ...limit, signal: controller.signal })).rejects.toMatchObject({
      code: 'E_ABORTED',
      outcome: 'none',
    });
  });
});

describe('a peer', () => {
  test('that never answers a sync was asked nothing', async () => {
    start(() => undefined, { ownSync: true });
    await expect(client.call('freeze', {}, short)).rejects.toMatchObject({
      name: 'UnreachableError',
      code: 'E_NO_ANSWER',
      outcome: 'none',
    });
    expect(peer.received).not.toContain('freeze');
  });

  test('that answers another sync is not in step', async () => {
    start((_request, to) => to.reply({ return: 12345 }, true), { ownSync: true });
    await expect(client.sync(60)).rejects.toBeInstanceOf(UnreachableError);
  });

  test('that goes away leaves the outcome unknown, and later calls undone', async () => {
    start((_request, to) => to.close());
    await expect(client.call('freeze', {}, limit)).rejects.toMatchObject({
      name: 'UnreachableError',
      outcome: 'unknown',
    });
    expect(client.open).toBe(false);
    await expect(client.call('status', {}, limit)).rejects.toMatchObject({ outcome: 'none' });
  });

  test.each([
    ['a reply without return or error', { id: true }],
    ['an error that is none', { error: { class: 1 } }],
    ['an error that is text', { error: 'x' }],
  ])('that sends %s', async (_name, reply) => {
    start((request, to) => to.reply({ ...reply, id: id(request) }));
    await expect(client.call('x', {}, limit)).rejects.toMatchObject({ code: 'E_REPLY', outcome: 'unknown' });
  });

  test.each([
    ['nests without end', '['.repeat(100_000)],
    ['sends a string without end', `{"return": "${'x'.repeat(20 * 1024 * 1024)}`],
    ['sends garbage', '\xff\0hello}]'.repeat(10_000)],
  ])('that %s is cut short, and found again', async (_name, text) => {
    start(async (request, to) => {
      if (request['execute'] === 'freeze') await to.say(text);
      else await to.reply({ return: 'ok', id: id(request) });
    });
    await expect(client.call('freeze', {}, { timeoutMs: 300 })).rejects.toMatchObject({ outcome: 'unknown' });
    expect(await client.call('status', {}, limit)).toBe('ok');
  });
});
