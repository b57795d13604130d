// A serial line as a unix socket: what a client may expect of it is what a chardev of QEMU's does.
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { serveLine } from '../../../../src/testing/user-mode/channel-socket.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

const MANY = 8 * 2 ** 20;
/** Towards the guest, where it goes in small pieces: more than the sockets between take. */
const ENOUGH = 2 ** 20;

let place: Scratch;
/** The guest's end of the line. */
let guest: Socket;
let served: AsyncDisposable;
let socketPath: string;
const clients: Socket[] = [];

beforeEach(async () => {
  place = scratch();
  const pair = createServer();
  pair.listen(path.join(place.dir, 'line'));
  const accepted = once(pair, 'connection') as Promise<[Socket]>;
  guest = connect(path.join(place.dir, 'line'));
  const [line] = await accepted;
  pair.close();
  socketPath = path.join(place.dir, 'qga.sock');
  served = await serveLine(line, socketPath);
});
afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy();
  guest.destroy();
  await served[Symbol.asyncDispose]();
  place[Symbol.dispose]();
});

async function client(): Promise<Socket> {
  const socket = connect(socketPath);
  clients.push(socket);
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  return socket;
}

/** What a socket has received, so far. */
function received(socket: Socket): () => string {
  let text = '';
  socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')));
  return () => text;
}

test('bytes go both ways', async () => {
  const one = await client();
  const heard = received(one);
  const said = received(guest);
  one.write('ping');
  await vi.waitFor(() => {
    expect(said()).toBe('ping');
  });
  guest.write('pong');
  await vi.waitFor(() => {
    expect(heard()).toBe('pong');
  });
});

test('the second client waits with what it has said until the first one is gone, and hears nothing of its talk', async () => {
  const said = received(guest);
  const [first, second, third] = [await client(), await client(), await client()];
  const heard = received(second);
  second.write('second');
  third.write('third');
  first.write('first ');
  await vi.waitFor(() => {
    expect(said()).toBe('first ');
  });
  guest.write('for the first');
  await once(first, 'data');
  await sleep(20);
  expect(said()).toBe('first ');
  first.destroy();
  await vi.waitFor(() => {
    expect(said()).toBe('first second');
  });
  guest.write('for the second');
  await vi.waitFor(() => {
    expect(heard()).toBe('for the second');
  });
  second.end();
  await vi.waitFor(() => {
    expect(said()).toBe('first secondthird');
  });
});

test('what the guest says while there is no client is lost', async () => {
  guest.write('to nobody');
  const first = await client();
  first.destroy();
  await once(first, 'close');
  await sleep(20);
  guest.write('to nobody again');
  await sleep(50);
  const heard = received(await client());
  await sleep(20);
  guest.write('to somebody');
  await vi.waitFor(() => {
    expect(heard()).toBe('to somebody');
  });
});

test('a client that does not read stops the guest, and then gets all of it', async () => {
  const one = await client();
  one.pause();
  one.write('x');
  await once(guest, 'data');
  guest.write(Buffer.alloc(MANY, 'g'));
  await sleep(100);
  expect(guest.writableLength).toBeGreaterThan(0);
  let bytes = 0;
  one.on('data', (chunk: Buffer) => (bytes += chunk.length)).resume();
  await vi.waitFor(() => {
    expect(bytes).toBe(MANY);
  });
});

test('a client that goes while the guest is stopped by it leaves the line to the next one', async () => {
  const one = await client();
  one.pause();
  one.write('x');
  await once(guest, 'data');
  guest.write(Buffer.alloc(MANY, 'g'));
  await sleep(50);
  one.destroy();
  await vi.waitFor(() => {
    expect(guest.writableLength).toBe(0);
  });
  const two = await client();
  two.write('x');
  await once(guest, 'data');
  guest.write('!');
  await vi.waitFor(async () => {
    const [chunk] = (await once(two, 'data')) as [Buffer];
    expect(chunk.toString('latin1').at(-1)).toBe('!');
  });
});

test('a guest that does not read stops the client, and then gets all of it', { timeout: 30_000 }, async () => {
  guest.pause();
  const one = await client();
  one.write(Buffer.alloc(ENOUGH, 'c'));
  await sleep(100);
  expect(one.writableLength).toBeGreaterThan(0);
  let bytes = 0;
  guest.on('data', (chunk: Buffer) => (bytes += chunk.length)).resume();
  await vi.waitFor(
    () => {
      expect(bytes).toBe(ENOUGH);
    },
    { timeout: 20_000 },
  );
});

test('when the guest is over its clients are told, and others refused', async () => {
  const [first, second] = [await client(), await client()];
  const told = Promise.all([once(first, 'close'), once(second, 'close')]);
  first.resume();
  second.resume();
  guest.destroy();
  await told;
  await expect(client()).rejects.toMatchObject({ code: expect.stringMatching(/ECONNREFUSED|ENOENT/) as unknown });
});
