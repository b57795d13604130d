// Our client against Debian's qemu-ga: the handshake, every harmless command's answer as declared, errors, a lost
// reply. The stream is guarded: nothing else can go out.
import { existsSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { QgaClient } from '../../src/qga/client.js';
import { createRemoteCoordinator } from '../../src/qga/remote-coordinator.js';
import type { ByteStream } from '../../src/transport/byte-stream.js';
import { blockedSample, makeGuard } from './harmless.js';
import { qemuGa, realAgent } from './peers.js';

const limit = { timeoutMs: 5000 };

function guarded(stream: ByteStream): ByteStream {
  const guard = makeGuard();
  return {
    read: () => stream.read(),
    async write(bytes) {
      guard(bytes);
      await stream.write(bytes);
    },
    close: () => stream.close(),
  };
}

describe.skipIf(!existsSync(qemuGa))(`our client and ${qemuGa}`, () => {
  test('speak to each other', async () => {
    await using agent = await realAgent();
    await agent.stream.write(Buffer.from('{"half a request": [1, "left behind'));
    await using client = await QgaClient.connect(guarded(agent.stream), limit);
    expect(await client.call('guest-ping', {}, limit)).toEqual({});
    expect(await client.call('guest-sync', { id: -9223372036854775808n }, limit)).toBe(-9223372036854775808n);
    const info = await client.call('guest-info', {}, limit);
    expect(info.version).toMatch(/^\d+\.\d+/);
    expect(info.supported_commands).toContainEqual({ name: 'guest-ping', enabled: true, 'success-response': true });
    expect(await client.call('guest-fsfreeze-status', {}, limit)).toBe('thawed');
    expect(await client.call('guest-get-osinfo', {}, limit)).toHaveProperty('kernel-release');
    expect((await client.call('guest-get-fsinfo', {}, limit)).every(({ mountpoint }) => mountpoint !== '')).toBe(true);
    await expect(client.call(blockedSample, {}, limit)).rejects.toMatchObject({ class: 'CommandNotFound' });
    expect(await client.call('guest-ping', {}, limit)).toEqual({});
  });

  test('find each other again after a lost reply', async () => {
    await using agent = await realAgent();
    const stream = guarded(agent.stream);
    await using client = await QgaClient.connect(stream, limit);
    const controller = new AbortController();
    const lost = client.call('guest-get-osinfo', {}, { ...limit, signal: controller.signal });
    setImmediate(() => {
      controller.abort();
    });
    await lost.catch((error: unknown) => {
      expect(error).toMatchObject({ code: 'E_ABORTED', outcome: 'unknown' });
    });
    expect(await client.call('guest-sync', { id: 77 }, limit)).toBe(77);
  });

  test('know it for a stock agent', async () => {
    await using agent = await realAgent();
    await using client = await QgaClient.connect(guarded(agent.stream), limit);
    const guest = await createRemoteCoordinator(client);
    expect(guest.kind).toBe('stock');
    expect(await guest.status()).toEqual({ state: 'idle' });
  });

  test('can say nothing that would touch a filesystem', async () => {
    await using agent = await realAgent();
    await using client = await QgaClient.connect(guarded(agent.stream), limit);
    // A lone freeze-list of nothing: refused by the guard before it is sent, and blocked behind it.
    await expect(client.call('guest-fsfreeze-freeze-list', { mountpoints: [] }, limit)).rejects.toMatchObject({
      cause: expect.objectContaining({ message: expect.stringContaining('refused to send') as string }) as Error,
    });
  });
});

test.each([
  'guest-fsfreeze-freeze',
  'guest-fsfreeze-\\u0066reeze',
  'guest-fsfreeze-thaw',
  'guest-set-time',
  'guest-exec',
  'guest-shutdown',
  'guest-ge\\u0074-users',
])('the guard refuses %s, whole and byte by byte', (name) => {
  const text = `{"execute": "${name}"}`;
  expect(() => {
    makeGuard()(Buffer.from(text));
  }).toThrow('refused to send');
  const guard = makeGuard();
  expect(() => {
    for (const byte of text) guard(Buffer.from(byte));
  }).toThrow('refused to send');
});
