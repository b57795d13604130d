// Runs the command lines in a chamber and gives what they printed and how they ended, with what is of the moment or of
// one program only put into words: process ids, times, the program's name.
import { openChamber, type Chamber, type ChamberAgent } from './chamber.js';
import type { CommandLineCase } from './command-line-cases.js';
import { escapeText, unescapeText } from './transcript.js';

export interface Outcome {
  readonly stdout: string;
  readonly stderr: string;
  /** `exit 0`, `signal 15`, `no end`. */
  readonly end: string;
}

const prelude = `
agent() { $AGENT "$@"; }
start() { $AGENT "$@" & pid=$!; }
limited() { timeout 3 $AGENT "$@"; echo "exit $?"; }
activated() { timeout 3 sh -c 'export LISTEN_PID=$$; exec '"$AGENT"' "$@"' sh "$@"; echo "exit $?"; }
wait_for() { n=0; while [ ! -e "$1" ]; do n=$((n + 1)); [ $n -gt 400 ] && { echo "no $1"; return; }; usleep 25000; done; }
ask() { echo '{"execute": "guest-ping"}' | timeout 3 socat -t 1 - UNIX-CONNECT:"$1"; }
`;

/** Some at a time: most of them wait, and each has a chamber without the others. */
const CHAMBERS = 3;

export interface RanCommandLine {
  readonly asked: CommandLineCase;
  readonly outcome: Outcome;
}

/** In the order of the cases. */
export async function outcomes(
  agent: ChamberAgent,
  cases: readonly CommandLineCase[],
): Promise<readonly RanCommandLine[]> {
  const ran: RanCommandLine[] = [];
  const waiting = cases.entries();
  const work = async (): Promise<void> => {
    await using chamber = await openChamber(agent.rootfs);
    for (const [index, asked] of waiting) ran[index] = { asked, outcome: await run(chamber, agent, asked) };
  };
  await Promise.all(Array.from({ length: CHAMBERS }, work));
  return ran;
}

async function run(chamber: Chamber, agent: ChamberAgent, { script, conf }: CommandLineCase): Promise<Outcome> {
  await chamber.run(['/bin/sh', '-c', 'rm -rf /run/* /var/run/* /tmp/* /etc/qemu; mkdir -p /etc/qemu']);
  if (conf !== undefined) await write(chamber, '/etc/qemu/qemu-ga.conf', conf);
  const env = { AGENT: agent.command.join(' ') };
  const result = await chamber.run(['/bin/sh', '-c', `${prelude}\n${script}`], { env, limitMs: 25_000 });
  const end = result.timedOut ? 'no end' : result.exitCode === null ? 'a signal' : `exit ${result.exitCode}`;
  return { stdout: plain(result.stdout, agent), stderr: plain(result.stderr, agent), end };
}

async function write(chamber: Chamber, path: string, text: string): Promise<void> {
  const command = 'printf %s "$1" > "$2"';
  await chamber.run(['/bin/sh', '-c', command, 'sh', text, path]);
}

function plain(text: string, { command }: ChamberAgent): string {
  return text
    .replaceAll(command.join(' '), 'PROGRAM')
    .replaceAll(command.at(-1) ?? '', 'PROGRAM')
    .replaceAll('fsfreeze-agent: ', 'PROGRAM: ')
    .replaceAll("'fsfreeze-agent --help'", "'PROGRAM --help'")
    .replace(/^\d{10}\.\d{6}: /gm, 'TIME: ')
    .replace(/^\*\* \(process:\d+\): (\S+) \*\*: [\d:.]+: /gm, '** $1: ')
    .replace(/^\d{4}\/\d\d\/\d\d [\d:]+ socat\[\d+\]/gm, 'socat')
    .replace(/qga\.state\.\w{6}/g, 'qga.state.XXXXXX')
    .replace(/can't kill pid \d+/g, "can't kill pid PID")
    .replace(/"time":"[^"]*"/g, '"time":"TIME"')
    .replace(/^(sh: )?\[?\d*\]?\+?\s*(Terminated|Killed|Hangup).*\n/gm, '');
}

export interface RecordedCommandLine {
  readonly name: string;
  readonly outcome: Outcome;
}

/** `$` the script, `@` the configuration file, `|` standard output, `!` standard error, `=` how it ended. */
export function formatCommandLines(agent: string, all: readonly RanCommandLine[]): string {
  const blocks = all.map(({ asked: { name, script, conf }, outcome }) =>
    [
      `== ${escapeText(name)}`,
      `$ ${escapeText(script)}`,
      ...(conf === undefined ? [] : marked('@', conf)),
      ...marked('|', outcome.stdout),
      ...marked('!', outcome.stderr),
      `= ${outcome.end}`,
    ].join('\n'),
  );
  const head = [
    `# command-line: recorded from ${agent}`,
    '# $ what a shell was told   @ /etc/qemu/qemu-ga.conf   | standard output   ! standard error   = how it ended',
    '# Written by `npm run record-transcripts`: not edited by hand.',
  ];
  return `${[...head].join('\n')}\n\n${blocks.join('\n\n')}\n`;
}

export function parseCommandLines(text: string): readonly RecordedCommandLine[] {
  return text
    .split('\n== ')
    .slice(1)
    .map((block) => {
      const [name = '', ...lines] = block.split('\n');
      const of = (mark: string): string =>
        lines
          .filter((line) => line.startsWith(`${mark} `))
          .map((line) => `${unescapeText(line.slice(2))}\n`)
          .join('');
      return {
        name: unescapeText(name),
        outcome: { stdout: of('|'), stderr: of('!'), end: of('=').trimEnd() },
      };
    });
}

const marked = (mark: string, text: string): readonly string[] =>
  text === ''
    ? []
    : text
        .replace(/\n$/, '')
        .split('\n')
        .map((line) => `${mark} ${escapeText(line)}`);

/**
 * What of an outcome is compared: standard output to the byte, how it ended, what getopt and the shell's own programs
 * said, and whether anything else was said: an agent's own words about its errors are its own.
 */
export function comparable({ stdout, stderr, end }: Outcome): readonly string[] {
  const said = stderr.split('\n').filter(Boolean);
  const words = said.map((line) =>
    /^PROGRAM: (invalid option|unrecognized option|option )|^(ls|cat|sh): /.test(line) ? line : 'an error',
  );
  const once = words.filter((line, at) => line !== words[at - 1]);
  return [
    ...stdout
      .split('\n')
      .filter(Boolean)
      .map((line) => `| ${line}`),
    ...once.map((line) => `! ${line}`),
    `= ${end}`,
  ];
}
