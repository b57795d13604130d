// The guest's settings, as the agent's unit would have them: what is tested and listed here is what a freeze runs.
import { existsSync } from 'node:fs';
import { coordinatorOptions } from '../../agent/freeze-options.js';
import { silentLog } from '../../freeze/options.js';
import { readInvocation } from '../agent/options.js';

/** Throws as readInvocation() does: a UsageError for wrong settings. */
export function readGuestSettings(config: string | undefined) {
  const words = ['--check-config', ...(config === undefined ? [] : [`--config=${config}`])];
  const invocation = readInvocation(words);
  if (invocation.kind !== 'check') throw new Error('the settings were asked for, and something else was read');
  const { settings } = invocation;
  const { bridge } = settings;
  const path = bridge['local-socket'] ?? `${bridge['runtime-dir']}/agent.sock`;
  const localSocket = path === 'none' ? undefined : path;
  return {
    // Whoever calls this, the agent is root.
    freeze: { ...coordinatorOptions(settings, silentLog), writerOwner: 0 },
    /** The port or socket on which an agent of these settings serves a host. */
    host: { method: settings.method, path: settings.path },
    /** Where the agent listens for programs of this machine; undefined if it is told not to. */
    localSocket,
    /** The same, if it is there. */
    agentSocket: localSocket !== undefined && existsSync(localSocket) ? localSocket : undefined,
    runtimeDir: bridge['runtime-dir'],
    hookFailure: bridge['hook-failure'],
  };
}

export type GuestSettings = ReturnType<typeof readGuestSettings>;
