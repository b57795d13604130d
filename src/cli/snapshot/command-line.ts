// fsfreeze-snapshot's command line to what it asks for. A first word that is a path is dragonsdawn-snapshot's call.
import { resolve } from 'node:path';
import type { ConsistencyLevel } from '../../consistency.js';
import { PACKAGE_VERSION } from '../../version.js';
import { helpTexts } from './help.js';
import {
  checkOptions,
  cowSize,
  isCommand,
  level,
  parseWords,
  seconds,
  usage,
  type CommandName,
  type Values,
} from './options.js';

interface Common {
  readonly json: boolean;
  /** The agent's configuration file; without it, where the agent looks. */
  readonly config: string | undefined;
}

export interface TakeOptions {
  readonly paths: readonly string[];
  readonly dryRun: boolean;
  readonly require: ConsistencyLevel | 'auto';
  readonly requireSnapshot: boolean;
  readonly leaseMs: number;
  readonly ttlMs?: number;
  readonly size?: { readonly bytes: number } | { readonly part: number };
  readonly provider?: string;
}

export type Invocation =
  | { readonly kind: 'print'; readonly text: string }
  | ({ readonly kind: 'writers list' } & Common)
  | ({ readonly kind: 'writers test'; readonly name: string; readonly holdMs: number } & Common)
  | ({ readonly kind: 'writers lint'; readonly file: string; readonly as: string | undefined } & Common)
  | ({ readonly kind: 'exec'; readonly take: TakeOptions; readonly words: readonly string[] } & Common)
  | ({
      readonly kind: '-t' | 'start-snapshot';
      readonly take: TakeOptions;
      readonly target: string;
      /** Let go by release or a signal, not by the end of standard input. */
      readonly noStdin: boolean;
      /** The options and paths as they were given, to be given on. */
      readonly given: readonly string[];
    } & Common)
  | ({
      readonly kind: 'hold';
      readonly paths: readonly string[];
      readonly words: readonly string[];
      readonly require: ConsistencyLevel | 'auto';
      readonly leaseMs: number;
    } & Common)
  | ({ readonly kind: 'show' | 'release' | 'revert'; readonly run: string; readonly yes: boolean } & Common)
  | ({ readonly kind: 'gc'; readonly run: string | undefined } & Common)
  | ({ readonly kind: 'list' | 'stop-snapshot' } & Common)
  | ({ readonly kind: 'providers'; readonly paths: readonly string[] } & Common);

const LONGEST_HOLD_S = 60;
const LONGEST_LEASE_S = 600;
const LEASE_S = '10';
const LONGEST_TTL_S = 30 * 24 * 3600;
/** dragonsdawn-snapshot's. */
const TARGET = '/mnt';
const writersCommands = ['list', 'test', 'lint'] as const;

/** Throws a UsageError. */
export function readCommandLine(all: readonly string[]): Invocation {
  const end = all.indexOf('--');
  const words = end < 0 ? undefined : all.slice(end + 1);
  const { values, positionals } = parseWords(end < 0 ? all : all.slice(0, end));
  if (values.version === true) return { kind: 'print', text: `fsfreeze-snapshot ${PACKAGE_VERSION}\n` };
  const { name, operands } = commandOf(positionals, values);
  if (values.help === true || name === undefined) {
    if (values.help !== true) throw usage('expected a command or a path');
    return { kind: 'print', text: helpTexts[name ?? ''] };
  }
  checkOptions(name, values);
  if (words !== undefined && name !== 'exec' && name !== 'hold') throw usage(`${name} takes no command after --`);
  return invocation({ name, operands, values, words, all });
}

function commandOf(
  [first, ...rest]: readonly string[],
  values: Values,
): { readonly name?: CommandName; readonly operands: readonly string[] } {
  if (first === undefined) return { operands: [] };
  if (first.startsWith('/')) return { name: '-t', operands: [first, ...rest] };
  if (first === 'writers') {
    const [given, ...operands] = rest;
    if (given === undefined && values.help === true) return { operands: [] };
    const found = writersCommands.find((known) => known === (given ?? 'list'));
    if (found === undefined)
      throw usage(`writers: expected one of ${writersCommands.join(', ')}, found '${given ?? ''}'`);
    return { name: `writers ${found}`, operands };
  }
  if (isCommand(first) && first !== '-t') return { name: first, operands: rest };
  throw usage(`expected a command or an absolute path, found '${first}'`);
}

interface Given {
  readonly name: CommandName;
  readonly operands: readonly string[];
  readonly values: Values;
  readonly words: readonly string[] | undefined;
  readonly all: readonly string[];
}

function invocation({ name, operands, values, words, all }: Given): Invocation {
  const common = { json: values.json === true, config: values.config };
  switch (name) {
    case 'writers list':
    case 'list':
    case 'stop-snapshot':
      none(name, operands);
      return { kind: name, ...common };
    case 'writers test':
      return {
        kind: name,
        ...common,
        name: one(name, 'NAME', operands),
        holdMs: seconds('hold', values.hold ?? '0', 0, LONGEST_HOLD_S),
      };
    case 'writers lint':
      return { kind: name, ...common, file: one(name, 'FILE', operands), as: values.as };
    case 'exec':
      return { kind: name, ...common, take: takeOptions(name, operands, values), words: command(name, words, values) };
    case '-t':
    case 'start-snapshot':
      return {
        kind: name,
        ...common,
        take: takeOptions(name, operands, values),
        // Whoever holds it, or collects after a holder that died, does so from another folder.
        target: resolve(values.target ?? TARGET),
        noStdin: values['no-stdin'] === true,
        given: [...all.filter((word) => word !== name), '--target', resolve(values.target ?? TARGET)],
      };
    case 'hold':
      return {
        kind: name,
        ...common,
        paths: some(name, operands),
        words: command(name, words, values),
        require: level(values.require),
        leaseMs: leaseMs(values),
      };
    case 'show':
    case 'release':
    case 'revert':
      return { kind: name, ...common, run: one(name, 'RUN', operands), yes: values.yes === true };
    case 'gc':
      none(name, operands);
      return { kind: name, ...common, run: values.run };
    case 'providers':
      return { kind: name, ...common, paths: operands };
  }
}

function takeOptions(name: CommandName, operands: readonly string[], values: Values): TakeOptions {
  const size = values['cow-size'];
  return {
    paths: some(name, operands),
    dryRun: values['dry-run'] === true,
    // dragonsdawn-snapshot binds what it cannot cut, and goes on.
    require: name === 'exec' || values.require !== undefined ? level(values.require) : 'none',
    requireSnapshot: values['require-snapshot'] === true,
    leaseMs: leaseMs(values),
    ...(values.ttl === undefined ? {} : { ttlMs: seconds('ttl', values.ttl, 1, LONGEST_TTL_S) }),
    ...(size === undefined ? {} : { size: cowSize(size) }),
    ...(values.provider === undefined ? {} : { provider: values.provider }),
  };
}

function leaseMs(values: Values): number {
  return seconds('lease', values.lease ?? LEASE_S, 1, LONGEST_LEASE_S);
}

function command(name: string, words: readonly string[] | undefined, values: Values): readonly string[] {
  if (values['dry-run'] === true && (words === undefined || words.length === 0)) return [];
  if (words === undefined || words.length === 0)
    throw usage(`${name}: expected -- COMMAND after the paths, found none`);
  return words;
}

function some(name: string, operands: readonly string[]): readonly string[] {
  const what = name === '-t' ? '' : `${name}: `;
  if (operands.length === 0) throw usage(`${what}expected PATH..., found none`);
  return operands;
}

function one(name: string, what: string, operands: readonly string[]): string {
  const [operand = '', ...more] = operands;
  if (operand === '' || more.length > 0) throw usage(`${name}: expected one ${what}, found ${operands.length}`);
  return operand;
}

function none(name: string, operands: readonly string[]): void {
  if (operands.length > 0) throw usage(`${name}: expected no operand, found '${operands.join(' ')}'`);
}
