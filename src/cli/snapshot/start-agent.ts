// Starts the agent where nobody does: no service manager that keeps it, no port that it should serve. It stays, for the
// next command; a machine that has a port or systemd is left to these.
import { existsSync, mkdirSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { rootSocketBeside } from '../../agent/channels.js';
import { Deadline } from '../../deadline.js';
import { describeError, UnreachableError } from '../../errors.js';
import { runWithin } from '../../snapshot/program.js';
import type { GuestSettings } from './guest-settings.js';

const SYSTEMD_RUNS = '/run/systemd/system';
/** It says that it serves, or why not, within a minute. */
const START_LIMIT_MS = 70_000;
/** Another command that starts one at the same time has that recover from a predecessor first. */
const OTHER_LIMIT_MS = 20_000;
const STEP_MS = 100;

type Places = Pick<GuestSettings, 'agentSocket' | 'localSocket' | 'host' | 'runtimeDir'>;

/**
 * The local socket of the agent, once that answers there; undefined if none does, and it is not ours to start one.
 * Throws an UnreachableError if one was started and does not serve, or if one without a port would keep the host out.
 */
export async function agentThatAnswers(
  { agentSocket, localSocket, host, runtimeDir }: Places,
  config: string | undefined,
  note: (text: string) => void,
): Promise<string | undefined> {
  if (localSocket === undefined || (await answers(localSocket)) || existsSync(SYSTEMD_RUNS)) return agentSocket;
  const { method, path = '' } = host;
  // Whoever asks for another channel than the usual one has a host for it, be it there yet or not.
  if (method !== 'none' && (method !== 'virtio-serial' || existsSync(path)))
    throw new UnreachableError(
      'E_NO_AGENT',
      `no agent runs here, and one has to serve ${path} (${method}): expected fsfreeze-agent to be started with the machine`,
    );
  // Made by the daemon, its umask would shut out the group that may ask the agent.
  mkdirSync(runtimeDir, { recursive: true, mode: 0o755 });
  const log = join(runtimeDir, 'agent.log');
  const why = await start(runtimeDir, log, config);
  if (why === undefined) note(`no agent ran, and no systemd keeps one: fsfreeze-agent is started (log: ${log})`);
  const deadline = new Deadline(OTHER_LIMIT_MS);
  while (!(await answers(localSocket))) {
    if (deadline.passed)
      throw new UnreachableError('E_NO_AGENT', `fsfreeze-agent could not be started: ${why ?? `see ${log}`}`);
    await sleep(STEP_MS);
  }
  return localSocket;
}

/** Gives why it does not serve. */
async function start(runtimeDir: string, log: string, config: string | undefined): Promise<string | undefined> {
  const beside = join(dirname(process.execPath), 'fsfreeze-agent');
  try {
    const { exitCode, stderr } = await runWithin({ limitMs: START_LIMIT_MS, isToStay: true }, [
      existsSync(beside) ? beside : 'fsfreeze-agent',
      '--daemonize',
      '--method=none',
      `--pidfile=${join(runtimeDir, 'agent.pid')}`,
      `--logfile=${log}`,
      ...(config === undefined ? [] : [`--config=${resolve(config)}`]),
    ]);
    return exitCode === 0 ? undefined : stderr.trim() || `exit code ${exitCode}`;
  } catch (error) {
    return describeError(error);
  }
}

/** A socket outlives the agent that made it; of the two the one for root is there last. Never throws. */
async function answers(localSocket: string): Promise<boolean> {
  return await new Promise((settle) => {
    const socket = connect(rootSocketBeside(localSocket));
    socket.once('connect', () => {
      socket.destroy();
      settle(true);
    });
    socket.once('error', () => {
      settle(false);
    });
  });
}
