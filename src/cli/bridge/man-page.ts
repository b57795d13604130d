// The manual page fsfreeze-bridge(8), in man(7)'s macros: commands, options, exit codes and examples are those that
// --help prints, from the same declarations.
import { DEFAULT_STATE_DIR } from '../../host/sets/manifest-store.js';
import { DEFAULT_CONFIG_FILE } from '../../host/vm/vm.js';
import { PACKAGE_VERSION } from '../../version.js';
import { declaredCommands, type DeclaredCommand, type DeclaredOption } from './declared-commands.js';
import { exitCodes } from './exit-codes.js';

const PROGRAM = 'fsfreeze-bridge';

const description = [
  'Holds the guest of a running QEMU still by its agent, cuts all of its disks in one transaction of the monitor, and lets ' +
    'the guest go within milliseconds. What was cut is a snapshot set, labelled with the consistency that was reached and ' +
    'proved. The VM is an entry of the configuration, a libvirt domain (--vm libvirt:NAME), or a plain QEMU named by its ' +
    'sockets (--qmp, --qga).',
  'Results go to standard output, progress and complaints to standard error. SIGINT, SIGTERM and SIGHUP thaw the guest ' +
    'first, however often they come.',
];

const files: readonly (readonly [string, string])[] = [
  [DEFAULT_CONFIG_FILE, 'The VMs by name; need not be there. For example:'],
  [
    DEFAULT_STATE_DIR,
    'A folder for each VM, and in it one for each set, with its manifest: which files hold the cut, its level and the ' +
      'evidence. Who removes it no longer knows what those files hold.',
  ],
  [
    'fsfreeze-bridge-recover.service, fsfreeze-bridge-recover.timer',
    'In the Debian package: run "fsfreeze-bridge recover" at boot and every quarter of an hour. Exit code 8 is no failure of ' +
      'the service: it leaves a warning in the journal. "systemctl disable --now fsfreeze-bridge-recover.timer" leaves the ' +
      'one at boot.',
  ],
];

/** `configuration`: an example of the configuration file. */
export function manPage(configuration: string): string {
  const commands = declaredCommands();
  const shared = sharedOptions(commands);
  const [configFile, ...otherFiles] = files;
  return [
    `.TH FSFREEZE-BRIDGE 8 "" "${PROGRAM} ${PACKAGE_VERSION}" "System Administration"`,
    '.SH NAME',
    text(`${PROGRAM} - consistent snapshots of running QEMU virtual machines`),
    '.SH SYNOPSIS',
    ...commands.flatMap(({ line }, index) => [...(index === 0 ? [] : ['.br']), commandLine(line)]),
    '.SH DESCRIPTION',
    ...paragraphs(description),
    '.SH COMMANDS',
    ...commands.flatMap((command) => describeCommand(command, shared)),
    '.SH OPTIONS OF SEVERAL COMMANDS',
    ...shared.flatMap(describeOption),
    ...item([bold('--help')], 'print what a command does, and its options'),
    ...item([bold('--version')], 'print the version'),
    '.SH EXIT STATUS',
    ...exitCodes.flatMap(({ code, meaning }) => item([bold(String(code))], meaning)),
    '.SH FILES',
    ...(configFile === undefined ? [] : item([italic(configFile[0])], configFile[1])),
    ...verbatim(configuration),
    ...otherFiles.flatMap(([name, what]) => item([italic(name)], what)),
    '.SH EXAMPLES',
    ...commands.flatMap(({ examples }) => examples).flatMap(([line, what]) => example(line, what)),
    '.SH SEE ALSO',
    text('fsfreeze(8), qemu-ga(8), qemu-img(1), virsh(1)'),
    '',
  ].join('\n');
}

/** Declared alike by more than one command, in the order in which they come first. */
function sharedOptions(commands: readonly DeclaredCommand[]): readonly DeclaredOption[] {
  const all = commands.flatMap(({ options }) => options);
  return all.filter((option, index) => {
    const isFirst = all.findIndex((other) => same(other, option)) === index;
    return isFirst && all.filter((other) => same(other, option)).length > 1;
  });
}

/** `<set>`, `[vm]`, `[runs..]`. */
const placeholders = /[<[](\w+)[>\].]+/g;

const same = (one: DeclaredOption, other: DeclaredOption): boolean => JSON.stringify(one) === JSON.stringify(other);

function describeCommand(command: DeclaredCommand, shared: readonly DeclaredOption[]): string[] {
  const isShared = (option: DeclaredOption): boolean => shared.some((other) => same(other, option));
  const common = command.options.filter(isShared).map(({ names: [name = ''] }) => bold(`--${name}`));
  return [
    `.SS "${escaped(command.line.replace(placeholders, (_all, name: string) => name.toUpperCase()))}"`,
    text(`${command.text.charAt(0).toUpperCase()}${command.text.slice(1)}.`),
    ...command.positionals.flatMap(([name, what]) => item([italic(name.toUpperCase())], what)),
    ...command.options.filter((option) => !isShared(option)).flatMap(describeOption),
    ...(common.length === 0 ? [] : ['.PP', `Also: ${common.join(', ')}; see below.`]),
    ...command.epilogues.flatMap((epilogue) => ['.PP', ...paragraphs(epilogue.split('\n\n'))]),
  ];
}

function describeOption({ names, value, text: what, default: preset, repeats }: DeclaredOption): string[] {
  const argument = value === undefined ? '' : ` ${italic(value)}`;
  const dashed = names.map((name) => `${bold(`${name.length === 1 ? '-' : '--'}${name}`)}${argument}`);
  const notes = [
    ...(preset === undefined || what.includes('default:') ? [] : [`default: ${preset}`]),
    ...(repeats && !what.includes('repeated') ? ['may be repeated'] : []),
  ];
  return item(dashed, notes.length === 0 ? what : `${what} (${notes.join('; ')})`);
}

/** A term, given as troff, and what it means. */
function item(terms: readonly string[], what: string): string[] {
  return ['.TP', terms.join(', '), text(what)];
}

function commandLine(line: string): string {
  const [, words = line, positionals = ''] = /^(.*?)((?: [<[]\w+\S*)*)$/.exec(line) ?? [];
  const arguments_ = positionals.replace(/[<[](\w+)[>\].]+/g, (whole, name: string) => {
    const shown = italic(name.toUpperCase());
    return whole.startsWith('<') ? shown : `[${shown}${whole.includes('..') ? ' ...' : ''}]`;
  });
  return `${bold(`${PROGRAM} ${words}`)}${arguments_} [${italic('OPTION')}]...`;
}

function example(line: string, what: string): string[] {
  return ['.TP', bold(line.replace('$0', PROGRAM)), text(what)];
}

function verbatim(lines: string): string[] {
  return ['.RS', '.PP', '.nf', ...lines.trimEnd().split('\n').map(text), '.fi', '.RE'];
}

function paragraphs(texts: readonly string[]): string[] {
  return texts.flatMap((each, index) => [...(index === 0 ? [] : ['.PP']), text(each)]);
}

const bold = (words: string): string => `\\fB${escaped(words)}\\fR`;
const italic = (words: string): string => `\\fI${escaped(words)}\\fR`;

/** A line of text: a dot or an apostrophe at its beginning is none of troff's. */
function text(words: string): string {
  return escaped(words).replace(/^(?=[.'])/, '\\&');
}

/** Dashes are those that one types. */
function escaped(words: string): string {
  return words.replaceAll('\\', '\\e').replaceAll('-', '\\-').replaceAll('"', '\\(dq');
}
