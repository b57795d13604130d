// The two sides of the comparison: Debian's qemu-ga and our agent, each a process on a socket of its own.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { UnreachableError } from '../../src/errors.js';
import type { ByteStream } from '../../src/transport/byte-stream.js';
import { connectUnixSocket } from '../../src/transport/unix-socket.js';
import { commandsToBlock } from './harmless.js';

export interface Peer extends AsyncDisposable {
  readonly stream: ByteStream;
}

export const qemuGa = '/usr/sbin/qemu-ga';

/** Debian's qemu-ga on a socket of its own, everything but the harmless commands blocked. */
export async function realAgent(): Promise<Peer> {
  const options = ['-b', commandsToBlock(qemuGa).join(',')];
  return await startProgram(qemuGa, [], () => Promise.resolve(options));
}

/** Our agent as it is built (`npm run build`), with the wording of 7.2, and nothing near it that freezes. */
export async function ourAgent(): Promise<Peer> {
  const words = [fileURLToPath(new URL('../../dist/cli/agent/main.js', import.meta.url))];
  const blocked = commandsToBlock(process.execPath, words).join(',');
  return await startProgram(process.execPath, words, async (folder) => {
    const configuration = join(folder, 'qemu-ga.conf');
    const own = [`runtime-dir=${folder}`, 'freezer=/bin/false', 'local-socket=none', `writer-folders=${folder}/none`];
    await writeFile(configuration, `[bridge]\n${own.join('\n')}\n`);
    return ['--compat=7.2', '-c', configuration, '-b', blocked];
  });
}

export async function startProgram(
  program: string,
  words: readonly string[],
  optionsIn: (folder: string) => Promise<readonly string[]>,
): Promise<Peer> {
  const folder = await mkdtemp(join(tmpdir(), 'fsb-conformance-'));
  const options = await optionsIn(folder);
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
    const stream = await connectOnceThere(path, () => child.exitCode !== null);
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

/** The name of a socket is there before anybody listens behind it: until then it refuses. */
async function connectOnceThere(path: string, hasEnded: () => boolean): Promise<ByteStream> {
  for (let tries = 1; ; tries++) {
    try {
      return await connectUnixSocket(path, 5000);
    } catch (error) {
      if (!(error instanceof UnreachableError) || tries === 200 || hasEnded()) throw error;
      await sleep(50);
    }
  }
}
