// A QEMU that cannot outlive this process, however that ends, and its monitor.
import { setTimeout as sleep } from 'node:timers/promises';
import { Deadline } from '../../deadline.js';
import { describeError, UsageError } from '../../errors.js';
import { QmpClient } from '../../qmp/client.js';

const START_LIMIT_MS = 30_000;
const QUIT_LIMIT_MS = 10_000;
const POLL_MS = 20;

export interface GuestProcess extends AsyncDisposable {
  readonly monitor: QmpClient;
  hasEnded(): boolean;
}

/**
 * Ends with the process when disposed. Throws a UsageError `E_BOOT` with QEMU's own words if it does not start: the run was
 * not even looked at.
 */
export async function startGuest(program: string, args: readonly string[], socket: string): Promise<GuestProcess> {
  const { execa } = await import('execa');
  // In a group of its own, out of the reach of a terminal's Ctrl-C: we end it when we have seen what it shows.
  const child = execa('setpriv', ['--pdeathsig', 'KILL', '--', program, ...args], {
    ...{ reject: false, stdin: 'ignore', all: true, detached: true },
  } as const);
  let over = false;
  const ended = child.then((result) => {
    over = true;
    return result;
  });
  try {
    const monitor = await connect(socket, () => over);
    return {
      monitor,
      hasEnded: () => over,
      async [Symbol.asyncDispose]() {
        await monitor.execute('quit', undefined, { timeoutMs: QUIT_LIMIT_MS }).catch(() => undefined);
        monitor.close();
        const timer = setTimeout(() => child.kill('SIGKILL'), QUIT_LIMIT_MS);
        await ended;
        clearTimeout(timer);
      },
    };
  } catch (cause) {
    child.kill('SIGKILL');
    const { all, code } = await ended;
    const said = code === 'ENOENT' ? 'setpriv (Debian: util-linux) is not there' : all.trim().split('\n').join('; ');
    // That its socket is not there is no news, where it says why.
    const facts = { program };
    if (said !== '') throw new UsageError('E_BOOT', `${program} did not start: ${said}`, { facts });
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
