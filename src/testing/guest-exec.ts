// Runs commands in the guest, through the stock agent on the fixture's own port. They run while the agent under test holds
// the filesystems frozen, too, as long as they only read (a write to a frozen filesystem blocks).
import * as v from 'valibot';
import { Deadline } from '../deadline.js';
import { BridgeError, DeadlineError, describeError } from '../errors.js';
import type { AgentChannel } from './agent-channel.js';

export interface ExecOptions {
  /** Limit for the whole command; it is killed then. Default 30000. */
  readonly timeoutMs?: number;
  /** Given to the command's standard input. */
  readonly input?: string;
  /** Throw when the command does not end with exit code 0. Default true. */
  readonly check?: boolean;
}

export interface ExecResult {
  /** 128 + signal number for a command that a signal ended. */
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

const Started = v.object({ pid: v.number() });
const Status = v.object({
  exited: v.boolean(),
  exitcode: v.optional(v.number()),
  signal: v.optional(v.number()),
  'out-data': v.optional(v.string()),
  'err-data': v.optional(v.string()),
});

/** A command that runs in the guest. */
export class GuestProcess {
  readonly pid: number;
  readonly command: string;
  readonly #channel: AgentChannel;

  /** Made by `startInGuest`. @internal */
  constructor(channel: AgentChannel, pid: number, command: string) {
    this.#channel = channel;
    this.pid = pid;
    this.command = command;
  }

  /** Waits for its end, at most `timeoutMs` (DeadlineError; the command runs on). May be called once. */
  async wait(timeoutMs = 30_000): Promise<ExecResult> {
    const deadline = new Deadline(timeoutMs);
    for (let pauseMs = 4; ; pauseMs = Math.min(pauseMs * 1.5, 100)) {
      const status = v.parse(Status, await this.#channel.execute('guest-exec-status', { pid: this.pid }));
      if (status.exited) {
        return {
          exitCode: status.exitcode ?? 128 + (status.signal ?? 0),
          stdout: decode(status['out-data']),
          stderr: decode(status['err-data']),
        };
      }
      if (deadline.passed) throw new DeadlineError(`in the guest: ${this.command}`, timeoutMs, { outcome: 'unknown' });
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  }

  /** Sends a signal to it and all it has started, SIGKILL by default. Throws nothing when they have ended already. */
  async kill(signal = 'KILL'): Promise<void> {
    await execInGuest(this.#channel, ['/bin/kill', '-s', signal, '--', `-${this.pid}`], { check: false });
  }
}

/** Starts a command: an argument vector, or a line for /bin/sh. */
export async function startInGuest(
  channel: AgentChannel,
  command: string | readonly string[],
  input?: string,
): Promise<GuestProcess> {
  const arg = typeof command === 'string' ? ['/bin/sh', '-c', command] : command;
  const text = typeof command === 'string' ? command : command.join(' ');
  const started = await channel.execute('guest-exec', {
    path: '/usr/bin/setsid', // same process, but the leader of a group: `kill` then reaches what it has started, too
    arg,
    'capture-output': true,
    ...(input === undefined ? {} : { 'input-data': Buffer.from(input).toString('base64') }),
  });
  return new GuestProcess(channel, v.parse(Started, started).pid, text);
}

/**
 * Runs a command to its end, which is when its output is closed: a process left in the background needs its output
 * redirected (or `startInGuest`). Throws BridgeError `E_GUEST_COMMAND` when it fails and `check` is not false,
 * DeadlineError after `timeoutMs`.
 */
export async function execInGuest(
  channel: AgentChannel,
  command: string | readonly string[],
  { timeoutMs = 30_000, input, check = true }: ExecOptions = {},
): Promise<ExecResult> {
  const running = await startInGuest(channel, command, input);
  let result: ExecResult;
  try {
    result = await running.wait(timeoutMs);
  } catch (cause) {
    if (!(cause instanceof DeadlineError)) throw cause;
    const unkilled = await running.kill().then(
      () => '',
      (error: unknown) => ` (and could not be killed: ${describeError(error)})`,
    );
    throw new DeadlineError(`in the guest: ${running.command}${unkilled}`, timeoutMs, { cause, outcome: 'unknown' });
  }
  if (check && result.exitCode !== 0) {
    throw new BridgeError(
      'E_GUEST_COMMAND',
      `in the guest: ${running.command}: exit code ${result.exitCode}: ${(result.stderr || result.stdout).trim().slice(-2000)}`,
      { facts: { ...result } },
    );
  }
  return result;
}

function decode(base64: string | undefined): string {
  return base64 === undefined ? '' : Buffer.from(base64, 'base64').toString('utf8');
}
