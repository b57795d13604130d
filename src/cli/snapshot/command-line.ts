// fsfreeze-snapshot's command line to what it asks for. What the commands do: list.ts, test.ts, lint.ts.
import { parseArgs, type ParseArgsConfig } from 'node:util';
import { UsageError } from '../../errors.js';
import { PACKAGE_VERSION } from '../../version.js';
import { helpTexts } from './help.js';

interface Common {
  readonly json: boolean;
  /** The agent's configuration file; without it, where the agent looks. */
  readonly config: string | undefined;
}

export type Invocation =
  | { readonly kind: 'print'; readonly text: string }
  | ({ readonly kind: 'list' } & Common)
  | ({ readonly kind: 'test'; readonly name: string; readonly holdMs: number } & Common)
  | ({ readonly kind: 'lint'; readonly file: string; readonly as: string | undefined } & Common);

const LONGEST_HOLD_S = 60;
const subcommands = ['list', 'test', 'lint'] as const;

const options = {
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean', short: 'V' },
  config: { type: 'string', short: 'c' },
  hold: { type: 'string' },
  as: { type: 'string' },
} as const satisfies ParseArgsConfig['options'];

/** Throws a UsageError. */
export function readCommandLine(words: readonly string[]): Invocation {
  const { values, positionals } = parse(words);
  const [group, given, ...operands] = positionals;
  if (values.version === true) return { kind: 'print', text: `fsfreeze-snapshot ${PACKAGE_VERSION}\n` };
  if (group === undefined) {
    if (values.help === true) return { kind: 'print', text: helpTexts[''] };
    throw usage('expected a command: writers');
  }
  if (group !== 'writers') throw usage(`expected the command writers, found '${group}'`);
  const kind = subcommands.find((known) => known === (given ?? 'list'));
  if (kind === undefined) throw usage(`writers: expected one of ${subcommands.join(', ')}, found '${given ?? ''}'`);
  if (values.help === true) return { kind: 'print', text: helpTexts[given === undefined ? '' : kind] };
  for (const [option, of] of [
    ['hold', 'test'],
    ['as', 'lint'],
  ] as const)
    if (values[option] !== undefined && kind !== of) throw usage(`--${option} is an option of writers ${of}`);
  const common = { json: values.json === true, config: values.config };
  if (kind === 'list') {
    if (operands.length > 0) throw usage(`writers list: expected no operand, found '${operands.join(' ')}'`);
    return { kind, ...common };
  }
  const [operand = '', ...more] = operands;
  if (operand === '' || more.length > 0)
    throw usage(`writers ${kind}: expected one ${kind === 'test' ? 'NAME' : 'FILE'}, found ${operands.length}`);
  return kind === 'test'
    ? { kind, ...common, name: operand, holdMs: holdMs(values.hold ?? '0') }
    : { kind, ...common, file: operand, as: values.as };
}

function parse(words: readonly string[]) {
  try {
    return parseArgs({ args: [...words], options, allowPositionals: true, strict: true });
  } catch (error) {
    // It says, after the first sentence, how to write what one may not have meant.
    const [message = ''] = (error instanceof Error ? error.message : String(error)).split(/\. |\n/);
    throw usage(message);
  }
}

function holdMs(text: string): number {
  if (!/^\d+(\.\d+)?$/.test(text) || Number(text) > LONGEST_HOLD_S)
    throw usage(`--hold: expected seconds from 0 to ${LONGEST_HOLD_S}, found '${text}'`);
  return Number(text) * 1000;
}

function usage(message: string): UsageError {
  return new UsageError('E_USAGE', `${message} (see --help)`);
}
