// fsfreeze-agent's settings from its command line and its configuration file, as qemu-ga merges them: the command line
// wins, lists accumulate, `-V`, `-h`, `-D` and `-b help` end it at once with exit code 0. Also what -D prints.
import { existsSync, readFileSync } from 'node:fs';
import { defined } from '../../defined.js';
import { activatedSocket, type ActivatedSocket } from '../../agent/activation.js';
import { channelMethods, type ChannelMethod } from '../../agent/channels.js';
import { parseConfiguration, type BridgeConfiguration, type Configuration } from '../../agent/configuration.js';
import { splitList } from '../../agent/keyfile.js';
import { pathError, UsageError } from '../../errors.js';
import { policyPresets, type PolicyPreset } from '../../qga/command.js';
import { commandNames } from '../../qga/commands.js';
import type { Compat } from '../../qga/server.js';
import { PACKAGE_VERSION } from '../../version.js';
import {
  allowedWithin,
  hookAt,
  noDistribution,
  readDistribution,
  type Distribution,
  type DistributionSurroundings,
} from './distribution.js';
import { dump, type ListParts, type Merged } from './dump.js';
import { GetoptError, normalise } from './getopt.js';
import { describeOptions, optionForms } from './option-table.js';

/** Everything that can be set, defaults filled in. */
export interface Settings {
  readonly method: ChannelMethod;
  readonly path: string;
  /** Given by the service manager: then `method` is what it is, and `path` a name for it. */
  readonly activated?: ActivatedSocket;
  readonly retryPath: boolean;
  readonly daemonize: boolean;
  readonly pidfile: string;
  readonly statedir: string;
  /** What guest-info answers; without it, our version. */
  readonly reportVersion?: string;
  readonly logfile?: string;
  readonly fsfreezeHook?: string;
  readonly verbose: boolean;
  readonly blockRpcs: readonly string[];
  readonly allowRpcs: readonly string[];
  readonly compat: Compat;
  readonly policy: PolicyPreset;
  readonly bridge: BridgeConfiguration;
  /** What the distribution's files say; nothing unless our unit runs it. */
  readonly distribution: Distribution;
}

/** What the command line asks for: to serve, to say what serving would be like, or to print something and end. */
export type Invocation =
  | { readonly kind: 'serve'; readonly settings: Settings }
  | { readonly kind: 'check'; readonly json: boolean; readonly configurationFile: string; readonly settings: Settings }
  | { readonly kind: 'print'; readonly text: string; readonly exitCode: 0 | 1; readonly errorText?: string };

export interface Surroundings extends DistributionSurroundings {
  /** How the program was called, for messages. */
  readonly program: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The socket the service manager has opened for this process, if it has. */
  readonly activated: () => ActivatedSocket | undefined;
}

const surroundings: Surroundings = {
  program: 'fsfreeze-agent',
  env: process.env,
  activated: () => activatedSocket(process.env),
  exists: existsSync,
  hookAt,
  readFile(path) {
    try {
      return readFileSync(path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw pathError('E_CONFIG', `cannot read ${path}`, error as NodeJS.ErrnoException);
    }
  },
};

const DEFAULT_CONFIGURATION_FILE = '/etc/qemu/qemu-ga.conf';
const DEFAULT_STATE_DIR = '/var/run';
const DEFAULT_PID_FILE = '/var/run/qemu-ga.pid';
const DEFAULT_HOOK = '/etc/qemu/fsfreeze-hook';
const defaultPaths: Readonly<Record<ChannelMethod, string | undefined>> = {
  'virtio-serial': '/dev/virtio-ports/org.qemu.guest_agent.0',
  'isa-serial': '/dev/ttyS0',
  'unix-listen': undefined,
  'vsock-listen': undefined,
};

/** Throws a UsageError for what is wrong with the settings, another BridgeError for a file that cannot be read just now. */
export function readInvocation(words: readonly string[], around: Surroundings = surroundings): Invocation {
  let options: readonly string[];
  try {
    ({ options } = normalise(words, optionForms));
  } catch (error) {
    if (!(error instanceof GetoptError)) throw error;
    const already = firstAtOnce(error.before, around);
    if (already !== undefined) return { kind: 'print', exitCode: 0, text: already };
    return {
      kind: 'print',
      exitCode: 1,
      errorText: `${around.program}: ${error.message}\n`,
      text: `Unknown option, try '${around.program} --help' for more information.\n`,
    };
  }
  const atOnce = firstAtOnce(options, around);
  if (atOnce !== undefined) return { kind: 'print', exitCode: 0, text: atOnce };
  const own = collect(options);
  const isCheck = own.flags.has('check-config');
  const isUnit = own.flags.has('service') || isCheck;
  const distribution = isUnit ? readDistribution(around) : noDistribution;
  const given = collect([...distribution.options, ...options]);
  const configurationFile = given.text.get('config') ?? around.env['QGA_CONF'] ?? DEFAULT_CONFIGURATION_FILE;
  const configuration = readConfiguration(configurationFile, given.text.has('config'), around);
  const activated = around.activated();
  const merged = merge(given, configuration, distribution, activated);
  if (merged.path === undefined && activated === undefined) {
    throw new UsageError('E_USAGE', `${merged.method}: must specify a path for this channel`);
  }
  if (given.flags.has('dump-conf')) return { kind: 'print', exitCode: 0, text: dump(merged) };
  const settled = settle(merged, given, configuration, activated);
  const settings = isUnit
    ? {
        ...settled,
        daemonize: false,
        distribution: inForeground(distribution, settled, configuration, configurationFile),
      }
    : { ...settled, distribution };
  return isCheck
    ? { kind: 'check', json: own.flags.has('json'), configurationFile, settings }
    : { kind: 'serve', settings };
}

/** A unit watches what it has started: a daemon would be a second agent, beside the one that systemd starts again. */
function inForeground(
  distribution: Distribution,
  { daemonize }: Pick<Settings, 'daemonize'>,
  { general }: Configuration,
  configurationFile: string,
): Distribution {
  if (!daemonize) return distribution;
  const place =
    general.daemon === true
      ? { file: configurationFile, setting: 'daemon=true' }
      : { file: 'command line', setting: '--daemonize' };
  return { ...distribution, ignored: [...distribution.ignored, { ...place, why: 'of no use under a unit' }] };
}

// Options are looked at one after another: what ends the program ends it before a later one is found wrong.
function firstAtOnce(options: readonly string[], around: Surroundings): string | undefined {
  return options.map((option) => printAtOnce(option, around)).find((text) => text !== undefined);
}

function printAtOnce(option: string, { program }: Surroundings): string | undefined {
  if (option === '--version') return `fsfreeze-agent ${PACKAGE_VERSION} (compatible with QEMU Guest Agent 10.2.2)\n`;
  if (option === '--help') return describeOptions(program);
  const listing = /^--(block-rpcs|blacklist|allow-rpcs)=(help|\?)$/.test(option);
  return listing ? `${commandNames.join('\n')}\n` : undefined;
}

/** Options as given: the last of equal ones wins, but lists add up. */
interface Given {
  readonly text: ReadonlyMap<string, string>;
  readonly flags: ReadonlySet<string>;
  readonly lists: ReadonlyMap<string, ListParts>;
}

function collect(options: readonly string[]): Given {
  const text = new Map<string, string>();
  const flags = new Set<string>();
  const lists = new Map<string, ListParts>();
  for (const option of options) {
    const equals = option.indexOf('=');
    const word = option.slice(2, equals < 0 ? undefined : equals);
    const name = word === 'blacklist' ? 'block-rpcs' : word;
    const value = equals < 0 ? undefined : option.slice(equals + 1);
    if (name === 'fsfreeze-hook') text.set(name, value ?? DEFAULT_HOOK);
    else if (value === undefined) flags.add(name);
    else if (name.endsWith('-rpcs')) lists.set(name, [...(lists.get(name) ?? []), splitList(value)]);
    else text.set(name, value);
  }
  return { text, flags, lists };
}

function readConfiguration(file: string, isNamed: boolean, { readFile }: Surroundings): Configuration {
  const text = readFile(file);
  if (text === undefined && isNamed) throw new UsageError('E_CONFIG', `cannot read ${file}: no such file`);
  return parseConfiguration(text ?? '', file);
}

function merge(
  { text, flags, lists }: Given,
  configuration: Configuration,
  distribution: Distribution,
  activated: ActivatedSocket | undefined,
): Merged {
  const { general, bridge } = configuration;
  // On a vsock the preset is a limit whoever has chosen it.
  const limit =
    text.get('policy') ?? bridge.policy ?? (activated?.method === 'vsock-listen' ? 'freeze-only' : undefined);
  const method = text.get('method') ?? general.method ?? 'virtio-serial';
  const statedir = text.get('statedir') ?? general.statedir ?? DEFAULT_STATE_DIR;
  const path = text.get('path') ?? general.path;
  return {
    daemon: flags.has('daemonize') || general.daemon === true,
    method,
    path: path ?? (isMethod(method) ? defaultPaths[method] : undefined),
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

function settle(
  merged: Merged,
  { text }: Given,
  { bridge }: Configuration,
  activated: ActivatedSocket | undefined,
): Omit<Settings, 'distribution'> {
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
  if (path === undefined) throw new UsageError('E_USAGE', 'must specify a path for this channel');
  return {
    method,
    path,
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
    bridge: {
      ...bridge,
      ...defined({ freezer }),
      ...(localSocket === undefined ? {} : { 'local-socket': localSocket }),
    },
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
