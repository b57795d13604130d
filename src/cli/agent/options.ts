// fsfreeze-agent's command line to what it asks for. `-V`, `-h`, `-D` and `-b help` end it at once with exit code 0, as
// in qemu-ga. How settings are merged: settings.ts. What the options are: option-table.ts.
import { parseConfiguration, type Configuration } from '../../agent/configuration.js';
import { UsageError } from '../../errors.js';
import { commandNames } from '../../qga/commands.js';
import { PACKAGE_VERSION } from '../../version.js';
import { noDistribution, readDistribution, type Distribution } from './distribution.js';
import { dump } from './dump.js';
import { processEnvironment, type Environment } from './environment.js';
import { GetoptError, normalise } from './getopt.js';
import { collect } from './given-options.js';
import { describeOptions, optionForms } from './option-table.js';
import { merge, settle, type Settings } from './settings.js';

/** The command line asks to serve, to say what serving would be like, or to print something and end. */
export type Invocation =
  | { readonly kind: 'serve'; readonly settings: Settings }
  | { readonly kind: 'check'; readonly json: boolean; readonly configurationFile: string; readonly settings: Settings }
  | { readonly kind: 'print'; readonly text: string; readonly exitCode: 0 | 1; readonly errorText?: string };

const DEFAULT_CONFIGURATION_FILE = '/etc/qemu/qemu-ga.conf';

/** Throws a UsageError for wrong settings, another BridgeError for a file that cannot be read just now. */
export function readInvocation(words: readonly string[], env: Environment = processEnvironment): Invocation {
  let options: readonly string[];
  try {
    ({ options } = normalise(words, optionForms));
  } catch (error) {
    if (!(error instanceof GetoptError)) throw error;
    const already = firstAtOnce(error.before, env);
    if (already !== undefined) return { kind: 'print', exitCode: 0, text: already };
    return {
      kind: 'print',
      exitCode: 1,
      errorText: `${env.program}: ${error.message}\n`,
      text: `Unknown option, try '${env.program} --help' for more information.\n`,
    };
  }
  const atOnce = firstAtOnce(options, env);
  if (atOnce !== undefined) return { kind: 'print', exitCode: 0, text: atOnce };
  const own = collect(options);
  const isCheck = own.flags.has('check-config');
  const isUnit = own.flags.has('service') || isCheck;
  const distribution = isUnit ? readDistribution(env) : noDistribution;
  const given = collect([...distribution.options, ...options]);
  const configurationFile = given.text.get('config') ?? env.variables['QGA_CONF'] ?? DEFAULT_CONFIGURATION_FILE;
  const configuration = readConfiguration(configurationFile, given.text.has('config'), env);
  const activated = env.activated();
  const sources = { given, configuration, distribution, activated };
  const merged = merge(sources);
  if (merged.path === undefined && merged.method !== 'none' && activated === undefined) {
    throw new UsageError('E_USAGE', `${merged.method}: must specify a path for this channel`);
  }
  if (given.flags.has('dump-conf')) return { kind: 'print', exitCode: 0, text: dump(merged) };
  const settled = settle(merged, sources);
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
function firstAtOnce(options: readonly string[], env: Environment): string | undefined {
  return options.map((option) => printAtOnce(option, env)).find((text) => text !== undefined);
}

function printAtOnce(option: string, { program }: Environment): string | undefined {
  if (option === '--version') return `fsfreeze-agent ${PACKAGE_VERSION} (compatible with QEMU Guest Agent 10.2.2)\n`;
  if (option === '--help') return describeOptions(program);
  const listing = /^--(block-rpcs|blacklist|allow-rpcs)=(help|\?)$/.test(option);
  return listing ? `${commandNames.join('\n')}\n` : undefined;
}

function readConfiguration(file: string, isNamed: boolean, { readFile }: Environment): Configuration {
  const text = readFile(file);
  if (text === undefined && isNamed) throw new UsageError('E_CONFIG', `cannot read ${file}: no such file`);
  return parseConfiguration(text ?? '', file);
}
