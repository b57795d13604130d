// Makes a daemon (`-d`). Node cannot fork: the program starts itself anew, in a session of its own, and waits for the
// new one to say on a pipe that it serves, or why it does not. In qemu-ga the parent has gone before the pid file is
// locked.
import { spawn } from 'node:child_process';
import { closeSync, writeSync } from 'node:fs';
import { once } from 'node:events';
import { isSea } from 'node:sea';
import type { Readable } from 'node:stream';

/** Tells the daemon that it is one, and where its pipe is. */
const READY_VARIABLE = 'FSFREEZE_AGENT_READY_FD';
const READY_FD = 4;
const READY_WORD = 'ready';
const LIMIT_MS = 60_000;

/** The daemon's end of the pipe. */
export interface Readiness {
  ready(): void;
  failed(message: string): void;
}

/** Undefined if this process is not the daemon that `daemonize` has started. Deletes the variable from `env`. */
export function readiness(env: Record<string, string | undefined>): Readiness | undefined {
  const isDaemon = env[READY_VARIABLE] === String(READY_FD);
  Reflect.deleteProperty(env, READY_VARIABLE);
  if (!isDaemon) return undefined;
  let open = true;
  const tell = (text: string): void => {
    if (!open) return;
    open = false;
    try {
      writeSync(READY_FD, text);
      closeSync(READY_FD);
    } catch {
      // The parent has given up waiting: nobody is left to be told.
    }
  };
  return {
    ready() {
      tell(READY_WORD);
    },
    failed: tell,
  };
}

/**
 * Starts this program again as a daemon. Gives undefined once that serves; otherwise why it does not, and then it has
 * ended or is being ended.
 * @param inheritedFd a listening socket that it is to have, under the same number
 */
export async function daemonize(inheritedFd?: number): Promise<string | undefined> {
  const own = isSea() ? [] : [...process.execArgv, process.argv[1] ?? ''];
  const child = spawn(process.execPath, [...own, ...process.argv.slice(2)], {
    detached: true,
    env: { ...process.env, [READY_VARIABLE]: String(READY_FD), ...handedOn(inheritedFd) },
    stdio: ['ignore', 'ignore', 'ignore', inheritedFd ?? 'ignore', 'pipe'],
  });
  const pipe = child.stdio[READY_FD] as Readable;
  let text = '';
  let failure: string | undefined;
  child.once('error', (error) => {
    failure = error.message;
  });
  pipe.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  const timer = setTimeout(() => {
    failure = `did not serve within ${LIMIT_MS / 1000} s`;
    child.kill('SIGTERM');
    pipe.destroy();
  }, LIMIT_MS);
  await once(pipe, 'close');
  clearTimeout(timer);
  child.unref();
  if (text === READY_WORD) return undefined;
  return failure ?? (text === '' ? 'the daemon ended before it served' : text);
}

/** LISTEN_PID cannot be known before there is a process: `daemon` stands in its place. */
function handedOn(inheritedFd: number | undefined): Record<string, string> {
  return inheritedFd === undefined ? {} : { LISTEN_FDS: '1', LISTEN_PID: 'daemon' };
}
