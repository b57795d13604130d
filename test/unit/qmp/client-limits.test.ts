// A hostile monitor: what it says ends with one clear error, in bounded time and memory, and never extends a limit.
import { afterEach, expect, test, vi } from 'vitest';
import type { Duplex } from 'node:stream';
import { QmpClient } from '../../../src/qmp/client.js';
import { drip, endless } from '../../support/endless.js';
import { MiB, watchMemory } from '../../support/memory.js';
import { streamPair } from '../../support/stream-pair.js';

// Megabytes are read, and the memory is looked at: on a busy machine that takes its time.
vi.setConfig({ testTimeout: 60_000 });

const greeting =
  '{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\n';
let client: QmpClient | undefined;
let far: Duplex;
afterEach(() => {
  client?.close();
  client = undefined;
});

type Answer = (id: number) => Iterable<Buffer> | AsyncIterable<Buffer>;

/** A monitor that answers the first command with these bytes. */
async function connected(answer: Answer): Promise<QmpClient> {
  const [near, other] = streamPair();
  far = other;
  far.on('data', (chunk: Buffer) => {
    const { execute, id } = JSON.parse(chunk.toString()) as { execute: string; id: number };
    if (execute === 'qmp_capabilities') far.write(`{"return": {}, "id": ${id}}\n`);
    else void pour(answer(id));
  });
  far.write(greeting);
  client = await QmpClient.connect(near);
  return client;
}

let pouredBytes = 0;
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
  ['one long text', '{"return": "', 'x', 'message longer than 8388608 bytes'],
  ['empty lists', '{"return": [1', ',[]', 'message of more than 524288 values'],
  ['empty objects', '{"return": [1', ',{}', 'message of more than 524288 values'],
  ['members', '{"return": {"": 1', ',"k":0', 'message of more than 524288 values'],
  ['nesting', '{"return": ', '[', 'message nested deeper than 1024'],
  ['white space in a message', '{', ' ', 'message longer than 8388608 bytes'],
  ['no JSON', '', '?', 'expected a JSON object'],
  ['0xFF', '', '\xff', 'expected a JSON object'],
  ['answers without an id', '', '{"return": {}}', 'answer without an id'],
])('an answer of %s without end ends the connection with one error', async (_name, head, unit, problem) => {
  const memory = watchMemory();
  const monitor = await connected(() => endless(head, unit, 1024 * MiB, memory.look));
  await expect(monitor.execute('query-block')).rejects.toMatchObject({
    code: 'E_MONITOR_PROTOCOL',
    outcome: 'unknown',
    message: expect.stringContaining(`does not speak QMP: ${problem}`) as string,
  });
  expect(monitor.connected).toBe(false);
  expect(pouredBytes).toBeLessThan(10 * MiB);
  expect(memory.mostBytes).toBeLessThan(32 * MiB);
});

test('an answer of as many values as are taken is held in bounded memory', async () => {
  const memory = watchMemory();
  const monitor = await connected((id) => [
    ...endless('{"return": [1', ',{"a":1}', 1_300_000),
    Buffer.from(`], "id": ${id}}`),
  ]);
  const list = (await monitor.execute('query-block')) as unknown[];
  memory.look();
  expect(list.length).toBeGreaterThan(150_000);
  expect(memory.mostBytes).toBeLessThan(48 * MiB);
});

test.each([
  ['events', '{"event": "E", "timestamp": {"seconds": 1, "microseconds": 1}}\n'],
  ['answers to nobody', '{"return": {}, "id": 99999}\n'],
  ['white space', ' \n'],
])('%s without end: the time limit ends the command, and nothing is held', async (_name, unit) => {
  const memory = watchMemory();
  const monitor = await connected(() => endless('', unit, 1024 * MiB));
  const began = performance.now();
  await expect(monitor.execute('query-block', undefined, { timeoutMs: 300 })).rejects.toMatchObject({
    code: 'E_DEADLINE',
    outcome: 'unknown',
  });
  expect(performance.now() - began).toBeLessThan(5000);
  far.destroy();
  memory.look();
  expect(memory.mostBytes).toBeLessThan(32 * MiB);
});

test('events nobody takes are held up to a bound, however large they are', async () => {
  const memory = watchMemory();
  const text = 'x'.repeat(MiB);
  const event = `{"event": "E", "data": {"text": "${text}"}, "timestamp": {"seconds": 1, "microseconds": 1}}\n`;
  const monitor = await connected(function* (id) {
    for (let count = 0; count < 100; count++) yield Buffer.from(event);
    yield Buffer.from(`{"return": "done", "id": ${id}}`);
  });
  using listener = monitor.listen('E');
  expect(await monitor.execute('query-block')).toBe('done');
  memory.look();
  expect(memory.mostBytes).toBeLessThan(24 * MiB);
  expect((await listener.next(100)).data['text']).toBe(text);
});

test('an answer in single bytes takes no more than its bytes', async () => {
  const memory = watchMemory();
  const monitor = await connected(function* () {
    yield Buffer.from('{"return": "');
    const byte = Buffer.from('x');
    for (let count = 0; count < 300_000; count++) far.write(byte);
    memory.look();
  });
  await expect(monitor.execute('query-block', undefined, { timeoutMs: 2000 })).rejects.toThrow('no answer');
  expect(memory.mostBytes).toBeLessThan(8 * MiB);
});

test('a slow answer does not extend the limit, nor does a slow greeting', async () => {
  const monitor = await connected((id) => drip(`{"return": "${'slow '.repeat(1000)}", "id": ${id}}`, 5));
  const began = performance.now();
  await expect(monitor.execute('query-block', undefined, { timeoutMs: 200 })).rejects.toMatchObject({
    code: 'E_DEADLINE',
  });
  const [near, other] = streamPair();
  far = other;
  void pour(drip(greeting, 20));
  await expect(QmpClient.connect(near, { timeoutMs: 200 })).rejects.toMatchObject({ code: 'E_MONITOR_SILENT' });
  expect(performance.now() - began).toBeLessThan(5000);
  far.destroy();
});

test('a long error is cut', async () => {
  const monitor = await connected((id) => [
    Buffer.from(`{"error": {"class": "C", "desc": "${'d'.repeat(MiB)}"}, "id": ${id}}`),
  ]);
  await expect(monitor.execute('query-block')).rejects.toMatchObject({ desc: 'd'.repeat(4096) });
});
