// The manual page says what --help says: both come from the same declarations.
import { expect, test, vi } from 'vitest';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { exitCodes } from '../../../../src/cli/bridge/exit-codes.js';
import { declaredCommands } from '../../../../src/cli/bridge/declared-commands.js';
import { manPage } from '../../../../src/cli/bridge/man-page.js';
import { runBridge } from '../../../../src/cli/bridge/program.js';
import { readConfiguredVms } from '../../../../src/host/vm/vm.js';

const example = fileURLToPath(new URL('../../../../src/cli/bridge/package/vms.json', import.meta.url));
const page = manPage(readFileSync(example, 'utf8'));
/** As it is read, without fonts and line breaks. */
const shown = page
  .replace(/^\.[A-Z]+ ?/gm, '')
  .replace(/\\f[BIR]|\\&/g, '')
  .replaceAll('\\-', '-')
  .replaceAll('\\(dq', '"')
  .replaceAll('\\e', '\\')
  .replace(/\s+/g, ' ');

async function help(...words: readonly string[]): Promise<string> {
  const log = vi.spyOn(console, 'log').mockImplementation(() => undefined);
  const streams = { stdout: () => undefined, stderr: () => undefined };
  await runBridge([...words, '--help'], streams, new AbortController().signal);
  const text = log.mock.calls.flat().join('\n');
  // Left in place it would give what was said before as well.
  log.mockRestore();
  return text;
}

/** The part of one command, or of the options that several have. */
function section(line?: string): string {
  const heading = line?.replace(/[<[](\w+)[>\].]+/g, (_all, name: string) => name.toUpperCase()).replaceAll('-', '\\-');
  const [, rest = ''] = page.split(heading === undefined ? '.SH OPTIONS OF SEVERAL COMMANDS\n' : `.SS "${heading}"\n`);
  return (rest.split(/^\.S[SH]/m)[0] ?? '').replaceAll('\\-', '-');
}

test('has every command of --help, and no other', async () => {
  const listed: string[] = [];
  const collect = async (...group: readonly string[]): Promise<void> => {
    const lines = (await help(...group)).matchAll(/^ {2}fsfreeze-bridge (\S.*?) {2,}/gm);
    const commands = [...lines].map(([, line = '']) => line).filter((line) => !line.startsWith('--'));
    for (const line of commands) {
      if (line === 'snapshot' || line === 'backup') await collect(line);
      else listed.push(line);
    }
  };
  await collect();
  // Examples begin alike.
  const commands = new Set(listed.filter((line) => !line.includes(' --')));
  expect(declaredCommands().map(({ line }) => line)).toEqual([...commands]);
  expect(commands).toContain('snapshot create');
});

test.each(declaredCommands().map((command) => ({ line: command.line, command })))(
  'has every option of $line',
  async ({ line, command }) => {
    const text = await help(...line.replace(/ [<[].*/, '').split(' '));
    // `  -c, --connect  text`, before the examples.
    const [before = ''] = text.split(/^Examples:$/m);
    const options = [...before.matchAll(/^ +((-\w|--[\w-]+)(, )?)+(?= )/gm)].flatMap(([names]) =>
      names.trim().split(', '),
    );
    expect(options).toEqual(expect.arrayContaining(['--vm', '--json']));
    const part = section(line);
    const shared = section();
    const missing = options.filter((option) => !`${part}${shared}`.includes(`\\fB${option}\\fR`));
    expect(missing).toEqual([]);
    // Those of its own, and those it shares by name.
    const declared = command.options.map(({ names: [name = ''] }) => `--${name}`);
    expect(declared.filter((name) => !part.includes(name))).toEqual([]);
    expect(declared.filter((name) => !options.includes(name))).toEqual([]);
  },
);

test('has what they say', () => {
  for (const { text, options, epilogues, examples, positionals } of declaredCommands()) {
    const texts = [
      ...options.map((option) => option.text),
      ...epilogues.flatMap((epilogue) => epilogue.split('\n\n')),
      ...examples.flatMap(([line, what]) => [line.replace('$0', 'fsfreeze-bridge'), what]),
      ...positionals.map(([, what]) => what),
      text.slice(1),
    ];
    expect(texts.filter((each) => !shown.includes(each))).toEqual([]);
  }
});

test('has every exit code', () => {
  const [, part = ''] = page.split('.SH EXIT STATUS\n');
  const rows = [...part.matchAll(/^\.TP\n\\fB(\d+)\\fR\n(.*)$/gm)].map(([, code, meaning = '']) => ({
    code: Number(code),
    meaning: meaning.replaceAll('\\-', '-'),
  }));
  expect(rows).toEqual(exitCodes.map(({ code, meaning }) => ({ code, meaning })));
});

test('has no line that troff would take for a request of its own', () => {
  const requests = [...page.matchAll(/^[.'].*$/gm)].map(([line]) => line.split(' ')[0] ?? '');
  const known = ['.TH', '.SH', '.SS', '.PP', '.TP', '.br', '.nf', '.fi', '.RS', '.RE'];
  expect(requests.filter((request) => !known.includes(request))).toEqual([]);
});

test('shows a configuration that is one', async () => {
  const vms = await readConfiguredVms(example, true);
  expect(vms.map(({ name }) => name)).toEqual(['vm1', 'db1']);
  expect(shown).toContain('"libvirt": "db1"');
});
