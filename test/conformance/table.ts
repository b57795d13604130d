// The lists of qga/README.md: command by command and option by option, what a user of qemu-ga finds. From our
// declarations, from what is recorded of the real agents, and from the lists of accepted differences: what is in none
// of these lists is the same, or a test of this project fails.
import { commandNames, commands } from '../../src/qga/commands.js';
import type { Command } from '../../src/qga/command.js';
import { between, markdownList, type Item } from '../support/markdown-list.js';
import { acceptedCommandLines } from './accepted-command-lines.js';
import { acceptedTranscriptDifferences } from './accepted-transcript-differences.js';
import { changesNothing } from './argument-gate.js';
import { commandLineCases } from './command-line-cases.js';
import { knownDifferences } from './known-differences.js';
import { qapiCommandsElsewhere, signatures } from './qapi-signatures.js';
import { commandOf, transcriptsOf, type Release } from './replay.js';
import type { Recorded } from './transcript.js';

const releases: readonly Release[] = ['7.2', '10.0'];

/** The text with the lists in it as they should be. Throws if there is no place for them. */
export function withTable(readme: string): string {
  return between(readme, 'compatibility', lists());
}

/** What it is about, how often that was recorded, the verdict, and what differs. */
type Row = readonly [about: string, recorded: number, verdict: string, why: readonly string[]];

const item = ([about, recorded, verdict, why]: Row): Item => ({
  text: `${about}: ${verdict}${recorded === 0 ? '' : ` (${recorded} recorded)`}`,
  below: why,
});

function lists(): string {
  return [
    '### Commands',
    '',
    markdownList(commandRows().map(item)),
    '',
    '### Options, configuration, surroundings',
    '',
    markdownList(optionRows().map(item)),
  ].join('\n');
}

/** Families of a command, or of several; the others are about the wire, whatever command they use for it. */
const isOfCommands = (family: string): boolean => family.startsWith('commands-');

function commandRows(): readonly Row[] {
  const table: Readonly<Record<string, Command>> = commands;
  const all = releases.flatMap(transcriptsOf);
  const recorded = all.filter(({ family }) => isOfCommands(family)).flatMap(({ exchanges }) => exchanges);
  const onTheWire = all.filter(({ family }) => !isOfCommands(family)).flatMap(({ exchanges }) => exchanges);
  const real = signatures.map(({ name }) => name);
  const ours = commandNames.filter((name) => !real.includes(name));
  return [
    [
      'the wire (framing, resync, errors)',
      onTheWire.length,
      'differs on purpose',
      unique([...knownDifferences.wire, ...reasonsFor(onTheWire)]),
    ],
    ...real.map((name): Row => {
      const exchanges = recorded.filter(({ sends }) => commandOf(sends) === name);
      const declared = table[name];
      if (declared === undefined) return [code(name), exchanges.length, elsewhere(name), []];
      const why = unique([
        ...(declared.policy === 'full' ? ['not in the `default` policy: the administrator turns it on'] : []),
        ...(knownDifferences.commands[name] ?? []),
        ...reasonsFor(exchanges),
      ]);
      const same = changesNothing.has(name) ? 'same' : 'same, as far as asked';
      return [code(name), exchanges.length, why.length === 0 ? same : 'differs on purpose', why];
    }),
    ...ours.map((name): Row => [code(name), 0, 'ours', []]),
  ];
}

const reasonsFor = (exchanges: readonly Recorded[]): readonly string[] =>
  acceptedTranscriptDifferences
    .filter(({ exchange }) => exchanges.some(({ name }) => name === exchange))
    .map(({ why }) => why);

const elsewhere = (name: string): string => (qapiCommandsElsewhere.has(name) ? 'not on Linux' : 'not there yet');

function optionRows(): readonly Row[] {
  const subjects = unique([...commandLineCases.map(({ about }) => about), ...Object.keys(knownDifferences.options)]);
  return subjects.map((about): Row => {
    const names = new Set(commandLineCases.filter((one) => one.about === about).map(({ name }) => name));
    const listed = acceptedCommandLines.filter(({ name }) => names.has(name)).map(({ why }) => why);
    const why = unique([...(knownDifferences.options[about] ?? []), ...listed]);
    const verdict =
      why.length === 0 ? 'same' : names.size === 0 && about.startsWith('--') ? 'ours' : 'differs on purpose';
    return [/^[-$]/.test(about) ? code(about) : about, names.size * releases.length, verdict, why];
  });
}

const code = (text: string): string => `\`${text}\``;

function unique(texts: readonly string[]): readonly string[] {
  return [...new Set(texts)];
}
