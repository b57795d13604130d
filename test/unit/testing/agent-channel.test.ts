import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { AgentChannel } from '../../../src/testing/agent-channel.js';

type Answer = (request: { execute: string; arguments?: { id?: number } }, socket: Socket) => void;

let directory: string;
let server: Server | undefined;
const sockets = new Set<Socket>();

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'fsb-channel-test-'));
});
afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  server?.close();
  await rm(directory, { recursive: true, force: true });
});

/** An agent that answers guest-sync-delimited, after `before`, and hands the rest to `answer`. */
async function agent(answer: Answer, before = ''): Promise<AgentChannel> {
  const file = path.join(directory, 'agent.sock');
  server = createServer((socket) => {
    sockets.add(socket);
    socket.write(before, 'latin1');
    socket.on('data', (chunk: Buffer) => {
      for (const line of chunk.toString('latin1').replaceAll('\xff', '').split('\n')) {
        if (line === '') continue;
        const request = JSON.parse(line) as Parameters<Answer>[0];
        if (request.execute !== 'guest-sync-delimited') answer(request, socket);
        else socket.write(`\xff${JSON.stringify({ return: request.arguments?.id })}\n`, 'latin1');
      }
    });
  });
  await new Promise<void>((resolve) => server?.listen(file, resolve));
  return new AgentChannel(file);
}

test('replies of dead clients, whole and half, delimited and not, are skipped', async () => {
  const old = '{"return": 1}\n\xff{"return": 77}\n{"ret';
  await using channel = await agent((_request, socket) => socket.write('{"return": {"a": "\\u00E9"}}\n'), old);
  expect(await channel.execute('guest-info')).toEqual({ a: 'é' });
});

test('an error of the agent is told in its own words, and the channel goes on', async () => {
  const refusal = '{"error": {"class": "GenericError", "desc": "no such file"}}\n';
  await using channel = await agent(({ execute }, socket) =>
    socket.write(execute === 'guest-ping' ? '{"return": {}}\n' : refusal),
  );
  await expect(channel.execute('guest-exec')).rejects.toMatchObject({
    code: 'E_AGENT_REFUSED',
    message: 'guest-exec: no such file',
  });
  expect(await channel.execute('guest-ping')).toEqual({});
});

test('after a lost reply the next command is not answered with it', async () => {
  let late: (() => void) | undefined;
  await using channel = await agent(({ execute }, socket) => {
    if (execute === 'slow') late = () => socket.write('{"return": "late"}\n');
    else {
      late?.();
      socket.write('{"return": "prompt"}\n');
    }
  });
  await expect(channel.execute('slow', undefined, 100)).rejects.toMatchObject({ outcome: 'unknown' });
  expect(await channel.execute('quick')).toBe('prompt');
});

test('calls at the same time wait for one another; a closed connection fails the one under way', async () => {
  await using channel = await agent(({ execute }, socket) => {
    if (execute === 'die') socket.destroy();
    else setTimeout(() => socket.write(`{"return": "${execute}"}\n`), 20);
  });
  expect(await Promise.all([channel.execute('one'), channel.execute('two')])).toEqual(['one', 'two']);
  await expect(channel.execute('die')).rejects.toMatchObject({ code: 'E_AGENT_CLOSED', outcome: 'unknown' });
  expect(await channel.execute('three')).toBe('three');
});

test('nobody there is told within the limit', async () => {
  await using channel = new AgentChannel(path.join(directory, 'none.sock'));
  await expect(channel.execute('guest-ping', undefined, 200)).rejects.toMatchObject({ code: 'E_SOCKET' });
});

test('gibberish is an error that shows it', async () => {
  await using channel = await agent((_request, socket) => socket.write('hello\n'));
  await expect(channel.execute('guest-ping')).rejects.toThrow(/hello/);
});
