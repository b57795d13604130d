// Reads the key of encrypted files as its user keeps it: in a file that nobody else can read, or by a command that prints
// it. Every byte counts, a newline at the end too, as with `qemu-img --object secret,file=FILE`.
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { interruption } from '../../confirm.js';
import { describeError, QuiesceError, UsageError } from '../../errors.js';
import { LuksKey } from './luks-key.js';

/** It may ask a server, or a person. */
const COMMAND_LIMIT_MS = 60_000;
const OTHERS = 0o077;
/** More than any key has. */
const MOST_BYTES = 8192;

/** Throws a UsageError `E_KEY` if it cannot be read, or somebody else can read it. */
export async function keyInFile(path: string): Promise<LuksKey> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((cause: unknown) => {
    throw new UsageError('E_KEY', `cannot read the key in ${path}: ${describeError(cause)}`, { cause });
  });
  try {
    const found = await file.stat();
    if (!found.isFile()) throw new UsageError('E_KEY', `${path} is no file: expected one that holds a key`);
    if ((found.mode & OTHERS) !== 0) {
      const mode = (found.mode & 0o7777).toString(8);
      throw new UsageError(
        'E_KEY',
        `${path} has mode ${mode}, expected a key that its owner alone can read: chmod 600`,
      );
    }
    if (found.uid !== 0 && found.uid !== process.geteuid?.()) {
      throw new UsageError('E_KEY', `${path} belongs to user ${found.uid}, expected a key of your own, or of root`);
    }
    const { bytesRead, buffer } = await file.read(Buffer.alloc(MOST_BYTES), 0, MOST_BYTES, 0);
    return new LuksKey(buffer.subarray(0, bytesRead), path);
  } finally {
    await file.close();
  }
}

/**
 * What the shell's command has printed when the shell ends, whoever else keeps its output open. Throws a UsageError `E_KEY` if
 * it fails or does not end in time, a QuiesceError when interrupted: it is killed then, with what is in its process group. No
 * error has a word of the line, which may hold the key.
 */
export async function keyByCommand(line: string, signal: AbortSignal, limitMs = COMMAND_LIMIT_MS): Promise<LuksKey> {
  const { execa } = await import('execa');
  // In a group of its own. What it has to say it says to the user.
  const child = execa('/bin/sh', ['-c', line], {
    stdio: ['ignore', 'pipe', 'inherit'],
    ...{ buffer: false, reject: false, detached: true },
  });
  const end = (): void => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
    } catch {
      // It has ended.
    }
  };
  let printed = Buffer.alloc(0);
  child.stdout.on('data', (chunk: Buffer) => {
    printed = Buffer.concat([printed, chunk]);
    if (printed.length > MOST_BYTES) end();
  });
  const late = AbortSignal.timeout(limitMs);
  const stop = AbortSignal.any([signal, late]);
  const how = await Promise.race([endOf(child), child.then(() => 'it could not be started'), aborted(stop)]);
  end();
  // What it printed before it ended is in the pipe: two turns of the event loop read it.
  await nextTurn();
  await nextTurn();
  child.stdout.destroy();
  if (signal.aborted) throw new QuiesceError('E_INTERRUPTED', interruption(signal, 'nothing was done'));
  if (how === undefined) throw new UsageError('E_KEY', `--key-command did not end within ${limitMs / 1000} s`);
  if (how !== 'it ended with 0' && printed.length <= MOST_BYTES) {
    throw new UsageError('E_KEY', `--key-command failed: ${how}`);
  }
  return new LuksKey(printed, '--key-command');
}

async function endOf(child: Pick<ChildProcess, 'once'>): Promise<string> {
  return await new Promise((resolve) => {
    child.once('exit', (code, by) => {
      resolve(code === null ? `it was ended by ${by ?? 'a signal'}` : `it ended with ${code}`);
    });
  });
}

async function aborted(signal: AbortSignal): Promise<undefined> {
  if (!signal.aborted) await once(signal, 'abort');
  return undefined;
}
