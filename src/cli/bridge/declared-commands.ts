// Reads the commands and options back that program.ts declares, for the manual page. A recorder stands in the place of
// yargs and keeps every call that is made on it: yargs itself shows what it knows as lines of text alone.
import type { Argv } from 'yargs';
import * as v from 'valibot';
import { Output } from './output.js';
import { declareCommands } from './program.js';

const texts = v.array(v.string());
const optionSchema = v.looseObject({
  // Absent where there are choices.
  type: v.optional(v.picklist(['string', 'number', 'boolean']), 'string'),
  describe: v.string(),
  alias: v.optional(v.union([v.string(), texts])),
  choices: v.optional(texts),
  array: v.optional(v.boolean()),
  default: v.optional(v.union([v.string(), v.number(), v.boolean(), texts])),
});
const exampleSchema = v.tuple([v.string(), v.string()]);
const commandSchema = v.looseTuple([v.string(), v.string(), v.custom<(yargs: Argv) => unknown>(isFunction)]);

export interface DeclaredOption {
  /** Without dashes. The first one is the name, the others are aliases. */
  readonly names: readonly string[];
  /** `NUMBER`, `TEXT` or the words it takes; undefined for a flag. */
  readonly value: string | undefined;
  readonly text: string;
  /** Undefined for a default that goes without saying: false, or nothing. */
  readonly default: string | undefined;
  readonly repeats: boolean;
}

export interface DeclaredCommand {
  /** `snapshot show <set>` */
  readonly line: string;
  readonly text: string;
  readonly options: readonly DeclaredOption[];
  /** Name and text. */
  readonly positionals: readonly (readonly [string, string])[];
  /** Command line and what it does. */
  readonly examples: readonly (readonly [string, string])[];
  readonly epilogues: readonly string[];
}

/** All commands that can be run, in their order. */
export function declaredCommands(): readonly DeclaredCommand[] {
  const nothing = (): Promise<void> => Promise.resolve();
  const output = new Output({ stdout: () => undefined, stderr: () => undefined }, false);
  const wiring = { output, signal: new AbortController().signal, run: nothing, read: nothing };
  return commandsBelow(
    '',
    recorded((parser) => declareCommands(parser, wiring)),
  );
}

interface Call {
  readonly method: string;
  readonly words: readonly unknown[];
}

function recorded(declare: (yargs: Argv) => unknown): readonly Call[] {
  const calls: Call[] = [];
  const recorder: object = new Proxy(
    {},
    {
      get:
        (_target, method) =>
        (...words: readonly unknown[]) => {
          calls.push({ method: String(method), words });
          return recorder;
        },
    },
  );
  declare(recorder as Argv);
  return calls;
}

/** The commands that can be run: a group of them cannot. */
function commandsBelow(group: string, calls: readonly Call[]): readonly DeclaredCommand[] {
  return wordsOf(calls, 'command').flatMap((words) => {
    const [line, text, builder] = v.parse(commandSchema, words);
    const inner = recorded(builder);
    const below = commandsBelow(`${group}${line} `, inner);
    return below.length > 0 ? below : [describeCommand(`${group}${line}`, text, inner)];
  });
}

function describeCommand(line: string, text: string, calls: readonly Call[]): DeclaredCommand {
  const aliases = wordsOf(calls, 'alias').map((words) => v.parse(v.tuple([v.string(), v.string()]), words));
  return {
    line,
    text,
    options: wordsOf(calls, 'option').map(([name, option]) => {
      const also = aliases.filter(([of]) => of === name).map(([, alias]) => alias);
      return describeOption(v.parse(v.string(), name), also, v.parse(optionSchema, option));
    }),
    positionals: wordsOf(calls, 'positional').map(([name, of]) => {
      return [v.parse(v.string(), name), v.parse(v.looseObject({ describe: v.string() }), of).describe];
    }),
    examples: wordsOf(calls, 'example').map((words) => v.parse(exampleSchema, words)),
    epilogues: wordsOf(calls, 'epilogue').map(([epilogue]) => v.parse(v.string(), epilogue)),
  };
}

function describeOption(
  name: string,
  also: readonly string[],
  { type, describe, alias = [], choices, array = false, default: preset }: v.InferOutput<typeof optionSchema>,
): DeclaredOption {
  const silent = preset === undefined || preset === false || (Array.isArray(preset) && preset.length === 0);
  return {
    names: [name, ...[alias].flat(), ...also],
    value: type === 'boolean' ? undefined : (choices?.join('|') ?? (type === 'number' ? 'NUMBER' : 'TEXT')),
    text: describe,
    default: silent ? undefined : String(preset),
    repeats: array,
  };
}

function wordsOf(calls: readonly Call[], wanted: string): readonly (readonly unknown[])[] {
  return calls.filter(({ method }) => method === wanted).map(({ words }) => words);
}

function isFunction(value: unknown): boolean {
  return typeof value === 'function';
}
