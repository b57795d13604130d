// Starts the agent where nobody does: no service manager that keeps it, no port that it should serve. It stays, for the
// next command; a machine that has a port or systemd is left to these.
import { existsSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { describeError, UnreachableError } from '../../errors.js';
import { runWithin } from '../../snapshot/program.js';
import type { GuestSettings } from './guest-settings.js';

const SYSTEMD_RUNS = '/run/systemd/system';
const PORT = '/dev/virtio-ports/org.qemu.guest_agent.0';
/** It says that it serves, or why not, within a minute. */
const START_LIMIT_MS = 70_000;

/**
 * The local socket of the agent, once that answers there; undefined if none does, and it is not ours to start one.
 * Throws an UnreachableError if one was started and does not serve, or if one without a port would keep the host out.
 */
export async function agentThatAnswers(
  { agentSocket, localSocket, runtimeDir }: GuestSettings,
  config: string | undefined,
  note: (text: string) => void,
): Promise<string | undefined> {
  if (agentSocket !== undefined && (await answers(agentSocket))) return agentSocket;
  if (localSocket === undefined || existsSync(SYSTEMD_RUNS)) return agentSocket;
  if (existsSync(PORT))
    throw new UnreachableError(
      'E_NO_AGENT',
      `no agent runs here, and one has to serve ${PORT}: expected fsfreeze-agent to be started with the machine`,
    );
  const log = join(runtimeDir, 'agent.log');
  const words = ['--method=none', `--pidfile=${join(runtimeDir, 'agent.pid')}`, `--logfile=${log}`];
  const program = join(dirname(process.execPath), 'fsfreeze-agent');
  try {
    const { exitCode, stderr } = await runWithin({ limitMs: START_LIMIT_MS }, [
      existsSync(program) ? program : 'fsfreeze-agent',
      '--daemonize',
      ...words,
      ...(config === undefined ? [] : [`--config=${resolve(config)}`]),
    ]);
    if (exitCode === 0) note(`no agent ran, and no systemd keeps one: fsfreeze-agent is started (log: ${log})`);
    // Another command may have been quicker.
    if (exitCode === 0 || (await answers(localSocket))) return localSocket;
    throw new Error(`exit code ${exitCode}: ${stderr.trim() || `see ${log}`}`);
  } catch (cause) {
    throw new UnreachableError('E_NO_AGENT', `fsfreeze-agent could not be started: ${describeError(cause)}`, { cause });
  }
}

/** A socket outlives the agent that made it. Never throws. */
async function answers(path: string): Promise<boolean> {
  return await new Promise((settle) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      settle(true);
    });
    socket.once('error', () => {
      settle(false);
    });
  });
}
