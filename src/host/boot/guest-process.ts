// A QEMU and its monitor. It cannot outlive this process, however that ends, unless it is made to.
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Deadline } from '../../deadline.js';
import { CutError, describeError, UsageError } from '../../errors.js';
import { KEY_ID, keyInput, type LuksKey } from '../images/luks-key.js';
import { QmpClient } from '../../qmp/client.js';
import { runQmp } from '../../qmp/commands.js';

const START_LIMIT_MS = 30_000;
/** For each file that is opened with a key: a passphrase is stretched, by a processor that may be busy. */
const KEYED_FILE_MS = 5000;
const QUIT_LIMIT_MS = 10_000;
/** From the end of its monitor to that of QEMU. */
const END_LIMIT_MS = 5000;
const EVENT_LIMIT_MS = 1000;
const POLL_MS = 20;
/** Of what QEMU says. */
const WORDS_CHARACTERS = 4096;

export interface GuestProcess extends AsyncDisposable {
  readonly pid: number;
  readonly monitor: QmpClient;
  hasEnded(): boolean;
  /**
   * By what the guest ended QEMU, in its words (`guest-shutdown`, `guest-reset`, `guest-panic`); undefined if QEMU runs on.
   * Throws a CutError `E_BOOT` if it ended for any other reason: that is this host's doing.
   */
  ending(): Promise<string | undefined>;
  /** Of one that may outlive us: nobody here waits for its end any more, and the monitor is closed. Not disposed then. */
  letGo(): void;
}

export interface GuestKey {
  /** Of images that are named with it (KEY_OBJECT). */
  readonly key: LuksKey;
  readonly files: number;
}

/**
 * Ends the process when disposed. With `log`, a file that takes what QEMU says, it lives on when we end without that. Throws a
 * UsageError `E_BOOT` with QEMU's own words if it does not start: the run was not even looked at.
 */
export async function startGuest(
  program: string,
  args: readonly string[],
  socket: string,
  how: { readonly log: string } | { readonly keyed: GuestKey | undefined },
): Promise<GuestProcess> {
  const keyed = 'keyed' in how ? how.keyed : undefined;
  const keyFile = await keyed?.key.openFile();
  const child = await start(program, args, 'log' in how ? how.log : undefined, keyFile);
  const { said } = child;
  let over = false;
  const ended = child.ended.then((result) => {
    over = true;
    return result;
  });
  const endedWithin = async (limitMs: number): Promise<Awaited<typeof ended> | undefined> => {
    const stop = new AbortController();
    const late = sleep(limitMs, undefined, { signal: stop.signal }).catch(() => undefined);
    return await Promise.race([ended, late]).finally(() => {
      stop.abort();
    });
  };
  try {
    const monitor = await connect(socket, START_LIMIT_MS + (keyed?.files ?? 0) * KEYED_FILE_MS, () => over).finally(
      async () => {
        // QEMU has it open still, and has opened its images.
        await keyFile?.truncate(0);
        await keyFile?.close();
      },
    );
    if (keyed !== undefined) await runQmp(monitor, 'object-del', { id: KEY_ID });
    const shutdown = monitor.listen('SHUTDOWN');
    const why = async (): Promise<string | undefined> => {
      const result = await endedWithin(END_LIMIT_MS);
      if (result === undefined) return undefined;
      const data = await shutdown.next(EVENT_LIMIT_MS).then(
        (event) => event.data,
        () => undefined,
      );
      if (data?.['guest'] === true) return String(data['reason']);
      const how = result.signal === undefined ? `with exit code ${result.exitCode ?? '?'}` : `by ${result.signal}`;
      const by = data === undefined ? '' : `, told to by ${String(data['reason'])}`;
      const message = `${program} ended ${how}${by}, which was not the guest's doing`;
      throw new CutError('E_BOOT', said() === '' ? message : `${message}; it said: ${said()}`);
    };
    // The event is there once; who asks again gets the same answer.
    let asked: Promise<string | undefined> | undefined;
    return {
      monitor,
      pid: child.pid ?? 0,
      hasEnded: () => over,
      async ending() {
        asked ??= why();
        const reason = await asked;
        if (reason === undefined) asked = undefined;
        return reason;
      },
      letGo() {
        monitor.close();
        child.unref();
      },
      async [Symbol.asyncDispose]() {
        await monitor.execute('quit', undefined, { timeoutMs: QUIT_LIMIT_MS }).catch(() => undefined);
        monitor.close();
        if ((await endedWithin(QUIT_LIMIT_MS)) !== undefined) return;
        child.kill('SIGKILL');
        if ((await endedWithin(QUIT_LIMIT_MS)) !== undefined) return;
        throw new CutError('E_BOOT', `${program} (process ${child.pid ?? '?'}) was killed, and does not end`);
      },
    };
  } catch (cause) {
    child.kill('SIGKILL');
    const { code } = await ended;
    const message = code === 'ENOENT' ? 'setpriv (Debian: util-linux) is not there' : said();
    // That its socket is not there is no news, where it says why.
    const facts = { program };
    if (message !== '') throw new UsageError('E_BOOT', `${program} did not start: ${message}`, { facts });
    throw new UsageError('E_BOOT', `${program} did not start: ${describeError(cause)}`, { facts, cause });
  }
}

interface End {
  readonly exitCode?: number | undefined;
  readonly signal?: string | undefined;
  /** Why it could not be started at all. */
  readonly code?: string | undefined;
}

interface Child {
  readonly pid: number | undefined;
  readonly ended: Promise<End>;
  /** The last of its words, in one line. */
  readonly said: () => string;
  kill(signal: 'SIGKILL'): void;
  unref(): void;
}

// In a group of its own, out of the reach of a terminal's Ctrl-C: we end it when we have seen what it shows.
async function start(
  program: string,
  args: readonly string[],
  log: string | undefined,
  keyFile: Parameters<typeof keyInput>[0],
): Promise<Child> {
  const words = ['--no-new-privs', '--', program, ...args];
  return log === undefined
    ? await startBound(['--pdeathsig', 'KILL', ...words], keyInput(keyFile))
    : startLasting(words, log);
}

async function startBound(words: readonly string[], stdin: ReturnType<typeof keyInput>): Promise<Child> {
  const { execa } = await import('execa');
  const child = execa('setpriv', words, {
    stdin,
    ...{ reject: false, all: true, buffer: false, detached: true },
  } as const);
  let text = '';
  child.all.on('data', (chunk: Buffer) => {
    text = `${text}${chunk.toString('utf8')}`.slice(-WORDS_CHARACTERS);
  });
  return {
    pid: child.pid,
    ended: child,
    said: () => inOneLine(text),
    kill: (signal) => void child.kill(signal),
    unref: () => {
      child.unref();
    },
  };
}

// Its words go to the file itself: nobody reads a pipe of ours when we are gone.
function startLasting(words: readonly string[], log: string): Child {
  const file = openSync(log, 'a', 0o640);
  try {
    const child = spawn('setpriv', words, { stdio: ['ignore', file, file], detached: true });
    const ended = new Promise<End>((resolve) => {
      child.once('error', ({ code }: NodeJS.ErrnoException) => {
        resolve({ code });
      });
      child.once('exit', (exitCode, signal) => {
        resolve({ exitCode: exitCode ?? undefined, signal: signal ?? undefined });
      });
    });
    return {
      pid: child.pid,
      ended,
      said: () => inOneLine(readFileSync(log, 'utf8').slice(-WORDS_CHARACTERS)),
      kill: (signal) => void child.kill(signal),
      unref: () => {
        child.unref();
      },
    };
  } finally {
    closeSync(file);
  }
}

function inOneLine(text: string): string {
  return text.trim().split('\n').join('; ');
}

/** True for what startGuest throws. */
export function isRefusedStart(error: unknown): error is UsageError {
  return error instanceof UsageError && error.code === 'E_BOOT' && 'program' in error.facts;
}

/** Connects again until somebody listens: a QEMU that was just started has not made its socket yet. */
async function connect(socket: string, limitMs: number, hasEnded: () => boolean): Promise<QmpClient> {
  const deadline = new Deadline(limitMs);
  for (;;) {
    try {
      return await QmpClient.connect(socket, { timeoutMs: limitMs });
    } catch (error) {
      if (deadline.passed || hasEnded()) throw error;
      await sleep(POLL_MS);
    }
  }
}
