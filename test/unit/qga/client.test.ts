import { afterEach, describe, expect, test } from 'vitest';
import { QgaClient } from '../../../src/qga/client.js';
import { scriptedPeer, type Script } from '../rpc/scripted-peer.js';

const limit = { timeoutMs: 2000 };
let client: QgaClient | undefined;
afterEach(async () => {
  await client?.close();
});

async function connect(script: Script): Promise<QgaClient> {
  client = await QgaClient.connect(scriptedPeer(script).stream, limit);
  return client;
}

describe('the client of a guest agent', () => {
  test('tolerates members it does not know', async () => {
    const qga = await connect((request, to) =>
      to.reply({ return: { 'host-name': 'vm', 'new-member': [1] }, id: request['id'] }),
    );
    expect(await qga.call('guest-get-host-name', {}, limit)).toEqual({ 'host-name': 'vm' });
  });

  test('keeps 64-bit integers exact', async () => {
    const qga = await connect((request, to) => to.reply({ return: 1795166816168123457n, id: request['id'] }));
    expect(await qga.call('guest-get-time', {}, limit)).toBe(1795166816168123457n);
  });

  test.each([
    ['guest-get-time', 1.5, 'expected integer'],
    ['guest-get-host-name', {}, 'expected "host-name"'],
    ['guest-fsfreeze-status', 'melted', 'expected ("thawed" | "frozen"), found "melted"'],
    ['guest-get-fsinfo', [{ name: 'vda1', mountpoint: '/', type: 'ext4', disk: [{}] }], '0.disk.0'],
  ] as const)('refuses an answer to %s that is not as declared', async (name, answer, text) => {
    const qga = await connect((request, to) => to.reply({ return: answer, id: request['id'] }));
    const error = await qga.call(name, {}, limit).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ name: 'UnreachableError', code: 'E_REPLY', outcome: 'unknown' });
    expect(String(error)).toContain(text);
  });

  test('closes the stream of an agent that does not answer', async () => {
    const peer = scriptedPeer(() => undefined, { ownSync: true });
    await expect(QgaClient.connect(peer.stream, { timeoutMs: 50 })).rejects.toMatchObject({ code: 'E_NO_ANSWER' });
    await expect(peer.stream.write(Buffer.from('x'))).rejects.toMatchObject({ code: 'E_CLOSED' });
  });

  test('says which socket nobody listens on', async () => {
    await expect(QgaClient.connect('/nonexistent/qga.sock', limit)).rejects.toThrow('/nonexistent/qga.sock');
  });
});
