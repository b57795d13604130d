// The two sides of the comparison: Debian's qemu-ga, and ours behind one function. Ours is the dispatcher in process,
// with the agent's own handlers; FSB_CONFORMANCE_AGENT names a program (fsfreeze-agent) to be compared instead.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { filesystemHandlers } from '../../src/agent/handlers/filesystems.js';
import { systemHandlers } from '../../src/agent/handlers/system.js';
import { guestAgent, refuse } from '../../src/qga/server.js';
import { Dispatcher } from '../../src/rpc/dispatcher.js';
import type { ByteStream } from '../../src/transport/byte-stream.js';
import { memoryPair } from '../../src/transport/memory-pair.js';
import { connectUnixSocket } from '../../src/transport/unix-socket.js';
import { blockedSample, commandsToBlock } from './harmless.js';

export interface Peer extends AsyncDisposable {
  readonly stream: ByteStream;
}

export const qemuGa = '/usr/sbin/qemu-ga';

/** Debian's qemu-ga on a socket of its own, everything but the harmless commands blocked. */
export function realAgent(): Promise<Peer> {
  return startProgram(qemuGa, [], ['-b', commandsToBlock(qemuGa).join(',')]);
}

/** Our agent, with the wording of 7.2. */
export async function ourAgent(): Promise<Peer> {
  const program = process.env['FSB_CONFORMANCE_AGENT'];
  if (program === undefined) return dispatcherInProcess();
  // A script needs its interpreter, an executable does not.
  const [command, words] = program.endsWith('.js') ? [process.execPath, [program]] : [program, []];
  return await startProgram(command, words, ['--compat=7.2', '-b', commandsToBlock(command, words).join(',')]);
}

async function startProgram(program: string, words: readonly string[], options: readonly string[]): Promise<Peer> {
  const folder = await mkdtemp(join(tmpdir(), 'fsb-conformance-'));
  const path = join(folder, 'qga.sock');
  const args = [...words, '-m', 'unix-listen', '-p', path, '-t', folder, '-f', join(folder, 'pid'), ...options];
  const child = spawn(program, args, { stdio: 'ignore' });
  const exited = once(child, 'exit');
  const end = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await exited;
    }
    await rm(folder, { recursive: true, force: true });
  };
  try {
    for (let tries = 0; !existsSync(path); tries++) {
      if (tries === 200 || child.exitCode !== null) throw new Error(`${program} did not listen within 10 s`);
      await sleep(50);
    }
    const stream = await connectUnixSocket(path, 5000);
    return {
      stream,
      async [Symbol.asyncDispose]() {
        await stream.close();
        await end();
      },
    };
  } catch (error) {
    await end();
    throw error;
  }
}

function dispatcherInProcess(): Peer {
  const [near, far] = memoryPair();
  const policy = { compat: '7.2', blocked: new Set([blockedSample]), isFrozen: () => false } as const;
  const served = new Dispatcher<undefined>(guestAgent(handlers, policy, '7.2.22')).serve(far, undefined);
  return {
    stream: near,
    async [Symbol.asyncDispose]() {
      await near.close();
      await served;
    },
  };
}

const absent = (): never => refuse('not part of the comparison');

const { 'guest-get-osinfo': osinfo, 'guest-get-host-name': hostName, 'guest-get-time': time } = systemHandlers();
const { 'guest-get-fsinfo': fsinfo } = filesystemHandlers('7.2');
const channel = { origin: 'host', name: 'conformance' } as const;

const handlers = {
  'guest-get-osinfo': () => osinfo({}, channel),
  'guest-get-host-name': () => hostName({}, channel),
  'guest-get-time': () => time({}, channel),
  'guest-get-fsinfo': () => fsinfo({}, channel),
  'guest-fsfreeze-status': () => 'thawed' as const,
  'guest-fsfreeze-freeze': absent,
  'guest-fsfreeze-freeze-list': absent,
  'guest-fsfreeze-thaw': absent,
  'bridge-freeze': absent,
  'bridge-renew': absent,
  'bridge-thaw': absent,
  'bridge-status': absent,
  'bridge-writers': absent,
};
