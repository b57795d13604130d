// The agent's settings: command line over configuration file, configuration file over the distribution's, lists added
// up, as qemu-ga merges them. What is read and in which order: options.ts.
import type { ActivatedSocket } from '../../agent/activation.js';
import { channelMethods, type ChannelMethod } from '../../agent/channels.js';
import type { BridgeConfiguration, Configuration } from '../../agent/configuration.js';
import { defined } from '../../defined.js';
import { UsageError } from '../../errors.js';
import { policyPresets, type PolicyPreset } from '../../qga/command.js';
import type { Compat } from '../../qga/server.js';
import { allowedWithin, type Distribution } from './distribution.js';
import type { Merged } from './dump.js';
import type { GivenOptions } from './given-options.js';

/** Everything that can be set, defaults filled in. */
export interface Settings {
  readonly method: ChannelMethod;
  /** Undefined for the method `none` alone. */
  readonly path?: string;
  /** A socket of the service manager's: then `method` says its kind, and `path` is a name for it. */
  readonly activated?: ActivatedSocket;
  readonly retryPath: boolean;
  readonly daemonize: boolean;
  readonly pidfile: string;
  readonly statedir: string;
  /** The version that guest-info answers; without it, ours. */
  readonly reportVersion?: string;
  readonly logfile?: string;
  readonly fsfreezeHook?: string;
  readonly verbose: boolean;
  readonly blockRpcs: readonly string[];
  readonly allowRpcs: readonly string[];
  readonly compat: Compat;
  readonly policy: PolicyPreset;
  readonly bridge: BridgeConfiguration;
  /** Read from the distribution's files; empty unless our unit runs the agent. */
  readonly distribution: Distribution;
}

const DEFAULT_STATE_DIR = '/var/run';
const DEFAULT_PID_FILE = '/var/run/qemu-ga.pid';
const defaultPaths: Readonly<Record<ChannelMethod, string | undefined>> = {
  'virtio-serial': '/dev/virtio-ports/org.qemu.guest_agent.0',
  'isa-serial': '/dev/ttyS0',
  'unix-listen': undefined,
  'vsock-listen': undefined,
  none: undefined,
};

/** Places that settings come from. */
export interface SettingSources {
  readonly given: GivenOptions;
  readonly configuration: Configuration;
  readonly distribution: Distribution;
  readonly activated: ActivatedSocket | undefined;
}

/** qemu-ga's own settings, as -D prints them: not checked. */
export function merge({ given, configuration, distribution, activated }: SettingSources): Merged {
  const { text, flags, lists } = given;
  const { general, bridge } = configuration;
  // On a vsock the preset is a limit, whether it was chosen or is the default.
  const limit =
    text.get('policy') ?? bridge.policy ?? (activated?.method === 'vsock-listen' ? 'freeze-only' : undefined);
  const method = text.get('method') ?? general.method ?? 'virtio-serial';
  const statedir = text.get('statedir') ?? general.statedir ?? DEFAULT_STATE_DIR;
  const path = text.get('path') ?? general.path;
  return {
    daemon: flags.has('daemonize') || general.daemon === true,
    method,
    // A path that another file names is of a channel that is not opened.
    path: method === 'none' ? undefined : (path ?? (isMethod(method) ? defaultPaths[method] : undefined)),
    logfile: text.get('logfile') ?? general.logfile,
    pidfile: text.get('pidfile') ?? general.pidfile ?? DEFAULT_PID_FILE,
    fsfreezeHook:
      text.get('fsfreeze-hook') ?? general.fsfreezeHook ?? distribution.hooks.find(({ kind }) => kind === 'own')?.file,
    statedir,
    verbose: flags.has('verbose') || general.verbose === true,
    retryPath: flags.has('retry-path') || general.retryPath === true,
    blockRpcs: [general.blockRpcs, ...distribution.blockRpcs, ...(lists.get('block-rpcs') ?? [])],
    allowRpcs: [
      general.allowRpcs,
      ...allowedWithin(distribution.allowRpcs, limit, bridge['also-allow']),
      ...(lists.get('allow-rpcs') ?? []),
    ],
  };
}

/** All settings, checked. Throws a UsageError for what cannot be served. */
export function settle(
  merged: Merged,
  { given, configuration, activated }: SettingSources,
): Omit<Settings, 'distribution'> {
  const { text } = given;
  const { bridge } = configuration;
  const freezer = text.get('freezer');
  const localSocket = text.get('local-socket');
  const policy = policyOf(text.get('policy')) ?? bridge.policy;
  const reportVersion = text.get('report-version') ?? bridge['report-version'];
  const { logfile, fsfreezeHook, verbose, retryPath, pidfile, statedir } = merged;
  const { method, path } = activated ?? merged;
  if (!isMethod(method)) {
    throw new UsageError('E_USAGE', `expected a method of ${channelMethods.join(', ')}, found '${method}'`);
  }
  if (method === 'vsock-listen' && activated === undefined) {
    const unit = 'fsfreeze-agent-vsock.socket';
    throw new UsageError(
      'E_USAGE',
      `vsock-listen: Node cannot open a vsock; enable ${unit}, whose socket is taken over`,
    );
  }
  if (method === 'none' && (localSocket ?? bridge['local-socket']) === 'none')
    throw new UsageError('E_USAGE', 'method none and local-socket none: nobody could ask this agent for anything');
  if (path === undefined && method !== 'none') throw new UsageError('E_USAGE', 'must specify a path for this channel');
  return {
    method,
    ...defined({ path }),
    ...defined({ activated }),
    retryPath,
    daemonize: merged.daemon,
    pidfile,
    statedir,
    verbose,
    ...defined({ reportVersion, logfile }),
    // Fedora's way to say "no hook".
    ...(fsfreezeHook === undefined || fsfreezeHook === '/dev/null' || fsfreezeHook === '' ? {} : { fsfreezeHook }),
    blockRpcs: merged.blockRpcs.flat(),
    allowRpcs: merged.allowRpcs.flat(),
    compat: compatOf(text.get('compat')),
    policy: policy ?? usualPolicy(method),
    bridge: { ...bridge, ...defined({ freezer, 'local-socket': localSocket }) },
  };
}

// A vsock has no owner: any user of the guest can connect to it, and would read what only root may.
const usualPolicy = (method: ChannelMethod): PolicyPreset => (method === 'vsock-listen' ? 'freeze-only' : 'default');

function policyOf(given: string | undefined): PolicyPreset | undefined {
  const preset = policyPresets.find((known) => known === given);
  if (given === undefined || preset !== undefined) return preset;
  throw new UsageError('E_USAGE', `--policy: expected one of ${policyPresets.join(', ')}, found '${given}'`);
}

function compatOf(release = '10.2'): Compat {
  if (release === '10.2' || release === '7.2') return release;
  throw new UsageError('E_USAGE', `--compat: expected 10.2 or 7.2, found '${release}'`);
}

function isMethod(method: string): method is ChannelMethod {
  return channelMethods.some((known) => known === method);
}
