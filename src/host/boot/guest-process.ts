// A QEMU that cannot outlive this process, however that ends, and its monitor.
import { setTimeout as sleep } from 'node:timers/promises';
import { Deadline } from '../../deadline.js';
import { CutError, describeError, UsageError } from '../../errors.js';
import { QmpClient } from '../../qmp/client.js';

const START_LIMIT_MS = 30_000;
const QUIT_LIMIT_MS = 10_000;
/** From the end of its monitor to that of QEMU. */
const END_LIMIT_MS = 5000;
const EVENT_LIMIT_MS = 1000;
const POLL_MS = 20;
/** Of what QEMU says. */
const WORDS_CHARACTERS = 4096;

export interface GuestProcess extends AsyncDisposable {
  readonly monitor: QmpClient;
  hasEnded(): boolean;
  /**
   * By what the guest ended QEMU, in its words (`guest-shutdown`, `guest-reset`, `guest-panic`); undefined if QEMU runs on.
   * Throws a CutError `E_BOOT` if it ended for any other reason: that is this host's doing.
   */
  ending(): Promise<string | undefined>;
}

/**
 * Ends with the process when disposed. Throws a UsageError `E_BOOT` with QEMU's own words if it does not start: the run was
 * not even looked at.
 */
export async function startGuest(program: string, args: readonly string[], socket: string): Promise<GuestProcess> {
  const { execa } = await import('execa');
  // In a group of its own, out of the reach of a terminal's Ctrl-C: we end it when we have seen what it shows.
  const child = execa('setpriv', ['--pdeathsig', 'KILL', '--no-new-privs', '--', program, ...args], {
    ...{ reject: false, stdin: 'ignore', all: true, buffer: false, detached: true },
  } as const);
  let words = '';
  child.all.on('data', (chunk: Buffer) => {
    words = `${words}${chunk.toString('utf8')}`.slice(-WORDS_CHARACTERS);
  });
  const said = (): string => words.trim().split('\n').join('; ');
  let over = false;
  const ended = child.then((result) => {
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
    const monitor = await connect(socket, () => over);
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
      const message = `${program} ended ${how}${by}, which was not the guest's doing: nothing was recorded`;
      throw new CutError('E_BOOT', said() === '' ? message : `${message}; it said: ${said()}`);
    };
    // The event is there once; who asks again gets the same answer.
    let asked: Promise<string | undefined> | undefined;
    return {
      monitor,
      hasEnded: () => over,
      async ending() {
        asked ??= why();
        const reason = await asked;
        if (reason === undefined) asked = undefined;
        return reason;
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

/** True for what startGuest throws. */
export function isRefusedStart(error: unknown): error is UsageError {
  return error instanceof UsageError && error.code === 'E_BOOT' && 'program' in error.facts;
}

/** Connects again until somebody listens: a QEMU that was just started has not made its socket yet. */
async function connect(socket: string, hasEnded: () => boolean): Promise<QmpClient> {
  const deadline = new Deadline(START_LIMIT_MS);
  for (;;) {
    try {
      return await QmpClient.connect(socket, { timeoutMs: START_LIMIT_MS });
    } catch (error) {
      if (deadline.passed || hasEnded()) throw error;
      await sleep(POLL_MS);
    }
  }
}
