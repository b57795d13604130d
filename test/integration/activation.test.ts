// Socket activation: the agent takes over a listening socket it did not open. The activator is systemd-socket-activate,
// which sets LISTEN_PID as systemd does. A unix socket is adopted by Node itself and, as a vsock would be, by libuv's
// stream handle (transport/stream-handle.ts).
import { once } from 'node:events';
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createConnection, createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { connectAgent } from '../support/agent-client.js';
import { requires } from '../support/requires.js';
import { scratch, type Scratch } from '../support/scratch.js';

const program = new URL('../../dist/cli/agent/main.js', import.meta.url).pathname;

interface Activated extends AsyncDisposable {
  readonly pid: number;
  readonly path: string;
}

async function activate(folder: Scratch): Promise<Activated> {
  const path = folder.path('socket');
  const own = [`runtime-dir=${folder.path('run')}`, 'freezer=/bin/false', `writer-folders=${folder.path('none')}`];
  writeFileSync(folder.path('conf'), `[bridge]\nlocal-socket=none\n${own.join('\n')}\n`);
  const agent = [process.execPath, program, '-c', folder.path('conf'), '-m', 'isa-serial', '-p', '/nonexistent'];
  const passed = [`--setenv=PATH=${process.env['PATH'] ?? ''}`, `--listen=${path}`];
  const child = spawn('systemd-socket-activate', [...passed, ...agent], { stdio: ['ignore', 'ignore', 'pipe'] });
  for (let tries = 0; !existsSync(path) && tries < 200; tries++) await sleep(20);
  return {
    // It becomes the agent when the first client comes.
    pid: child.pid ?? 0,
    path,
    async [Symbol.asyncDispose]() {
      child.kill('SIGTERM');
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    },
  };
}

requires('systemd-socket-activate')('a socket that was opened for the agent', () => {
  test('is served, overrides -m and -p, and is inherited by no child', async () => {
    using folder = scratch();
    await using agent = await activate(folder);
    using client = await connectAgent(agent.path);
    expect(await client.call('guest-ping', {}, 20_000)).toEqual({});
    // close-on-exec: a writer must not hold the host's socket.
    const flags = /^flags:\s*(\d+)/m.exec(readFileSync(`/proc/${agent.pid}/fdinfo/3`, 'utf8'))?.[1] ?? '0';
    expect(Number.parseInt(flags, 8) & 0o2000000).not.toBe(0);
  });

  test('has one client at a time; the next one waits, and one that does not read is no matter', async () => {
    using folder = scratch();
    await using agent = await activate(folder);
    using first = await connectAgent(agent.path);
    expect(await first.call('guest-ping', {}, 20_000)).toEqual({});
    using second = await connectAgent(agent.path);
    second.send('{"execute": "guest-ping"}');
    expect(await second.quiet(300)).toBe(true);
    first.socket.pause();
    first.send(`{"execute": "guest-ping", "id": "${'x'.repeat(2 * 1024 * 1024)}"}`);
    await sleep(300);
    first.socket.destroy();
    expect(await second.line(5000)).toBe('{"return": {}}');
  });
});

test("is taken over by libuv's stream handle, as a vsock is", async () => {
  using folder = scratch();
  const path = folder.path('socket');
  const opener = createServer();
  opener.listen(path);
  await once(opener, 'listening');
  const { fd } = (opener as unknown as { readonly _handle: { readonly fd: number } })._handle;
  const module = new URL('../../dist/transport/unix-socket.js', import.meta.url).href;
  const script = `
    import { listenOnUnixSocket } from '${module}';
    const onStream = async (stream) => {
      for await (const bytes of stream.read()) await stream.write(bytes);
      await stream.close();
    };
    await listenOnUnixSocket({ path: 'inherited', inherited: { fd: 3, isVsock: true }, clients: 'one', onStream });
    console.log('on');
  `;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit', fd],
  });
  try {
    if (child.stdout === null) throw new Error('expected the pipe that was asked for');
    await once(child.stdout, 'data');
    // From now on the child alone accepts; closing takes the name away, so the socket gets another one first.
    renameSync(path, folder.path('renamed'));
    opener.close();
    const client = createConnection(folder.path('renamed'));
    client.end('through the handle');
    const chunks: Buffer[] = [];
    for await (const chunk of client) chunks.push(chunk as Buffer);
    expect(Buffer.concat(chunks).toString()).toBe('through the handle');
  } finally {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
});
