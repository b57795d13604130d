import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, createConnection } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { UnreachableError, UsageError } from '../../../src/errors.js';
import { QUEUE_LIMIT_BYTES, type ByteStream, type Listener } from '../../../src/transport/byte-stream.js';
import { connectUnixSocket, listenOnUnixSocket } from '../../../src/transport/unix-socket.js';

let folder: string;
let path: string;
const cleanups: (() => Promise<void> | void)[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'fsb-socket-'));
  path = join(folder, 's');
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  rmSync(folder, { recursive: true });
});

const listen = async (clients: 'one' | number, onStream: (stream: ByteStream) => void): Promise<Listener> => {
  const listener = await listenOnUnixSocket({ path, clients, onStream });
  cleanups.push(() => listener.close());
  return listener;
};
const connect = async (): Promise<ByteStream> => {
  const stream = await connectUnixSocket(path, 1000);
  cleanups.push(() => stream.close());
  return stream;
};
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString();
const first = async (stream: ByteStream): Promise<string> => {
  for await (const chunk of stream.read()) return text(chunk);
  return 'ended';
};
const echo = async (stream: ByteStream): Promise<void> => {
  for await (const chunk of stream.read()) await stream.write(Buffer.from(`<${text(chunk)}>`));
  await stream.close();
};

describe('a unix socket', () => {
  test('carries bytes both ways, and answers a client that has ended its side', async () => {
    await listen(4, (stream) => {
      void echo(stream);
    });
    const socket = createConnection({ path, allowHalfOpen: true });
    cleanups.push(() => void socket.destroy());
    socket.end('ping');
    let answer = '';
    for await (const chunk of socket) answer += String(chunk);
    expect(answer).toBe('<ping>');
  });

  test('serves one client at a time when asked to; the next is served when the first has ended its side', async () => {
    const served: ByteStream[] = [];
    await listen('one', (stream) => served.push(stream));
    const one = await connect();
    const two = await connect();
    await one.write(Buffer.from('1'));
    await two.write(Buffer.from('2'));
    await expect.poll(() => served.length).toBe(1);
    const [serving] = served;
    if (serving === undefined) throw new Error('nobody is served');
    const reading = (async () => {
      for await (const chunk of serving.read()) expect(text(chunk)).toBe('1');
    })();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(served).toHaveLength(1);
    await one.close();
    await reading;
    await expect.poll(() => served.length).toBe(2);
    expect(await first(served[1] as ByteStream)).toBe('2');
  });

  test('resets a client that never reads, and only that one', async () => {
    const served: ByteStream[] = [];
    await listen(4, (stream) => served.push(stream));
    const deaf = createConnection(path).pause();
    deaf.on('error', () => undefined);
    cleanups.push(() => void deaf.destroy());
    const other = await connect();
    await expect.poll(() => served.length).toBe(2);
    const [victim, healthy] = served as [ByteStream, ByteStream];
    const block = Buffer.alloc(QUEUE_LIMIT_BYTES / 4);
    const writes = Array.from({ length: 12 }, () => victim.write(block));
    const outcomes = await Promise.allSettled(writes);
    const failures = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason as Error] : []));
    expect(failures.length).toBeGreaterThan(0);
    expect(failures.some((error) => /does not read: \d+ bytes wait, connection reset/.test(error.message))).toBe(true);
    await healthy.write(Buffer.from('well'));
    expect(await first(other)).toBe('well');
  });

  test('resets a client that takes nothing for too long, so that the next one is served', async () => {
    const served: ByteStream[] = [];
    const listener = await listenOnUnixSocket({
      path,
      clients: 'one',
      stallMs: 100,
      onStream: (stream) => served.push(stream),
    });
    cleanups.push(() => listener.close());
    const deaf = createConnection(path).pause();
    deaf.on('error', () => undefined);
    cleanups.push(() => void deaf.destroy());
    await expect.poll(() => served.length).toBe(1);
    await connect();
    await expect((served[0] as ByteStream).write(Buffer.alloc(QUEUE_LIMIT_BYTES))).rejects.toThrow(/writing failed/);
    await expect.poll(() => served.length).toBe(2);
  });

  test('turns a client too many away with a word, whatever that one does, and takes the next when there is room', async () => {
    const refusal = Buffer.from('too many\n');
    const listener = await listenOnUnixSocket({ path, clients: 2, refusal, onStream: (stream) => void echo(stream) });
    cleanups.push(() => listener.close());
    const one = await connect();
    const two = await connect();
    for (const stream of [one, two]) {
      await stream.write(Buffer.from('in'));
      expect(await first(stream)).toBe('<in>');
    }
    for (let more = 0; more < 20; more++) {
      const refused = await connect();
      void refused.write(Buffer.alloc(100_000)).catch(() => undefined);
      expect(await first(refused)).toBe('too many\n');
    }
    await one.close();
    await expect
      .poll(async () => {
        const next = await connect();
        await next.write(Buffer.from('in')).catch(() => undefined);
        return await first(next);
      })
      .toBe('<in>');
  });

  test('cuts a client too many that takes nothing', async () => {
    const listener = await listenOnUnixSocket({ path, clients: 1, refusal: Buffer.alloc(8_000_000), onStream() {} });
    cleanups.push(() => listener.close());
    await connect();
    const socket = createConnection({ path });
    socket.pause();
    const began = performance.now();
    await once(socket.resume().pause(), 'connect');
    await new Promise((resolve) => setTimeout(resolve, 700));
    socket.resume();
    await once(socket, 'close').catch(() => undefined);
    expect(socket.bytesRead).toBeLessThan(8_000_000);
    expect(performance.now() - began).toBeLessThan(5000);
  });

  test('sends one reply larger than the queue limit', async () => {
    await listen(1, (stream) => {
      void stream.write(Buffer.alloc(QUEUE_LIMIT_BYTES * 2)).then(() => stream.close());
    });
    const stream = await connect();
    let count = 0;
    for await (const chunk of stream.read()) count += chunk.length;
    expect(count).toBe(QUEUE_LIMIT_BYTES * 2);
  });

  test('replaces the socket of a dead server, but not a living one, nor a file', async () => {
    const dead = createServer().listen(path);
    await once(dead, 'listening');
    // A server that dies without a chance to unlink: its name stays and refuses.
    const { renameSync } = await import('node:fs');
    renameSync(path, `${path}.kept`);
    dead.close();
    await once(dead, 'close');
    renameSync(`${path}.kept`, path);
    const listener = await listen(1, (stream) => {
      void echo(stream);
    });
    await expect(listenOnUnixSocket({ path, clients: 1, onStream: () => undefined })).rejects.toThrow(
      /another program answers there/,
    );
    await listener.close();
    rmSync(path, { force: true });
    writeFileSync(path, '');
    await expect(listenOnUnixSocket({ path, clients: 1, onStream: () => undefined })).rejects.toThrow(
      /exists and is not a socket/,
    );
  });

  test('tells a path that will not do from what may be over the next time', async () => {
    const options = { path, clients: 1, onStream: () => undefined };
    // Both see that nobody is there, and one is the first to bind.
    const both = await Promise.allSettled([listenOnUnixSocket(options), listenOnUnixSocket(options)]);
    for (const one of both) if (one.status === 'fulfilled') cleanups.push(() => one.value.close());
    const failures = both.flatMap((one) => (one.status === 'rejected' ? [one.reason as Error] : []));
    expect(failures).toMatchObject([{ code: 'E_LISTEN', message: `cannot listen on ${path}: EADDRINUSE` }]);
    expect(failures[0]).not.toBeInstanceOf(UsageError);
    // The kernel lets nobody make a file there.
    const forbidden = listenOnUnixSocket({ ...options, path: '/proc/self/agent.sock' });
    await expect(forbidden).rejects.toBeInstanceOf(UsageError);
  });

  test('has the mode asked for from the beginning', async () => {
    const listener = await listenOnUnixSocket({ path, clients: 1, mode: 0o660, onStream: () => undefined });
    cleanups.push(() => listener.close());
    expect(statSync(path).mode & 0o777).toBe(0o660);
  });

  test('says what is wrong with a path that cannot be connected to', async () => {
    await expect(connectUnixSocket(path, 1000)).rejects.toThrow(`cannot connect to ${path}: ENOENT`);
    await expect(connectUnixSocket(path, 1000)).rejects.toBeInstanceOf(UnreachableError);
    expect(() => connectUnixSocket(`/${'x'.repeat(200)}`, 1000)).toThrow(UsageError);
  });

  test('rejects writes to a closed connection', async () => {
    await listen(1, () => undefined);
    const stream = await connect();
    await stream.close();
    await expect(stream.write(Buffer.from('x'))).rejects.toThrow(/the connection is closed/);
  });
});
