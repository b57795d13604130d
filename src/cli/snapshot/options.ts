// The options of fsfreeze-snapshot, and which command has which.
import { parseArgs, type ParseArgsConfig } from 'node:util';
import { consistencyLevels, type ConsistencyLevel } from '../../consistency.js';
import { UsageError } from '../../errors.js';

const options = {
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean', short: 'V' },
  config: { type: 'string', short: 'c' },
  /** dragonsdawn-snapshot has it; here what happens is always told. */
  verbose: { type: 'boolean', short: 'v' },
  hold: { type: 'string' },
  as: { type: 'string' },
  target: { type: 'string', short: 't' },
  'dry-run': { type: 'boolean' },
  require: { type: 'string' },
  'require-snapshot': { type: 'boolean' },
  lease: { type: 'string' },
  ttl: { type: 'string' },
  'cow-size': { type: 'string' },
  provider: { type: 'string' },
  'no-stdin': { type: 'boolean' },
  run: { type: 'string' },
  yes: { type: 'boolean', short: 'y' },
} as const satisfies ParseArgsConfig['options'];

type OptionName = keyof typeof options;

/** Options of every command. */
const EVERYWHERE: readonly OptionName[] = ['json', 'help', 'version', 'config', 'verbose'];
const TAKE: readonly OptionName[] = ['require', 'require-snapshot', 'lease', 'ttl', 'cow-size', 'provider', 'dry-run'];

const own = {
  'writers list': [],
  'writers test': ['hold'],
  'writers lint': ['as'],
  exec: TAKE,
  '-t': [...TAKE, 'target', 'no-stdin'],
  'start-snapshot': [...TAKE, 'target'],
  'stop-snapshot': [],
  hold: ['require', 'lease'],
  list: [],
  show: [],
  release: [],
  revert: ['yes'],
  gc: ['run'],
  providers: [],
} as const satisfies Readonly<Record<string, readonly OptionName[]>>;
export type CommandName = keyof typeof own;

export function isCommand(name: string): name is CommandName {
  return Object.hasOwn(own, name);
}

export type Values = ReturnType<typeof parseWords>['values'];

/** Throws a UsageError. */
export function parseWords(words: readonly string[]) {
  try {
    return parseArgs({ args: [...words], options, allowPositionals: true, strict: true });
  } catch (error) {
    // It says, after the first sentence, how to write what one may not have meant.
    const [message = ''] = (error instanceof Error ? error.message : String(error)).split(/\. |\n/);
    throw usage(message);
  }
}

/** Throws a UsageError for an option that the command has not. */
export function checkOptions(command: CommandName, values: Values): void {
  for (const name of Object.keys(options) as OptionName[]) {
    if (values[name] === undefined || EVERYWHERE.includes(name)) continue;
    const allowed: readonly OptionName[] = own[command];
    if (allowed.includes(name)) continue;
    const owners = Object.entries(own).filter(([, names]) => (names as readonly OptionName[]).includes(name));
    throw usage(`--${name} is an option of ${owners.map(([owner]) => owner).join(', ')}`);
  }
}

/** Milliseconds. Throws a UsageError unless it is a number of seconds within the bounds. */
export function seconds(name: string, text: string, least: number, most: number): number {
  if (!/^\d+(\.\d+)?$/.test(text) || Number(text) < least || Number(text) > most)
    throw usage(`--${name}: expected seconds from ${least} to ${most}, found '${text}'`);
  return Number(text) * 1000;
}

const UNITS = { '': 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3, T: 1024 ** 4 } as const;

/** `2G`, or `15%` of the origin. Throws a UsageError. */
export function cowSize(text: string): { readonly bytes: number } | { readonly part: number } {
  const [, count, unit] = /^(\d+(?:\.\d+)?)([KMGT%]?)$/i.exec(text) ?? [];
  const number = Number(count);
  if (count !== undefined && number > 0) {
    if (unit === '%' && number <= 100) return { part: number / 100 };
    const factor = UNITS[(unit ?? '').toUpperCase() as keyof typeof UNITS] as number | undefined;
    if (factor !== undefined) return { bytes: Math.ceil(number * factor) };
  }
  throw usage(`--cow-size: expected a size (500M, 2G) or a part of the volume (15%), found '${text}'`);
}

/** Throws a UsageError. */
export function level(text: string | undefined): ConsistencyLevel | 'auto' {
  const found = [...consistencyLevels, 'auto' as const].find((known) => known === (text ?? 'auto'));
  if (found === undefined)
    throw usage(`--require: expected one of ${consistencyLevels.join(', ')}, auto, found '${text ?? ''}'`);
  return found;
}

export function usage(message: string): UsageError {
  return new UsageError('E_USAGE', `${message} (see --help)`);
}
