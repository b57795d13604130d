// Runs commands in the guest through its agent.
import { setTimeout as sleep } from 'node:timers/promises';
import { throwIfInterrupted } from '../../confirm.js';
import type { Deadline } from '../../deadline.js';
import { UsageError } from '../../errors.js';
import type { AgentCaller } from '../../qga/client.js';

const ASK_MS = 10_000;
const POLL_MS = 100;

export interface GuestOutput {
  /** Undefined if it did not end before the deadline; it may run on. */
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/** True if the agent runs commands for the host. Throws what AgentCaller.call does. */
export async function mayExec(client: AgentCaller): Promise<boolean> {
  const { supported_commands: commands } = await client.call('guest-info', {}, { timeoutMs: ASK_MS });
  return ['guest-exec', 'guest-exec-status'].every((wanted) =>
    commands.some(({ name, enabled }) => name === wanted && enabled),
  );
}

/** The error for commands that the agent does not run. */
export function execForbidden(run: string): UsageError {
  const message = `the agent in run ${run} does not run commands for the host (guest-exec is switched off), so that --run cannot be answered; our agent runs them with policy=full in its qemu-ga.conf`;
  return new UsageError('E_BOOT', message);
}

/** Runs a line by /bin/sh. Throws what AgentCaller.call does, and a QuiesceError when interrupted. */
export async function execInGuest(
  client: AgentCaller,
  line: string,
  deadline: Deadline,
  signal: AbortSignal,
): Promise<GuestOutput> {
  const command = { path: '/bin/sh', arg: ['-c', line], 'capture-output': true };
  const { pid } = await client.call('guest-exec', command, { timeoutMs: ASK_MS });
  for (;;) {
    throwIfInterrupted(signal, 'nothing was recorded');
    const status = await client.call('guest-exec-status', { pid }, { timeoutMs: ASK_MS });
    if (status.exited) {
      const exitCode = Number(status.exitcode ?? 128 + Number(status.signal ?? 0));
      return { exitCode, stdout: textOf(status['out-data']), stderr: textOf(status['err-data']) };
    }
    if (deadline.passed) return { exitCode: undefined, stdout: '', stderr: '' };
    await sleep(POLL_MS, undefined, { signal }).catch(() => undefined);
  }
}

function textOf(base64 = ''): string {
  return Buffer.from(base64, 'base64').toString('utf8');
}
