// The freezer as it is built, on a socket on tmpfs, as a user without any right and without capabilities, so that no
// filesystem of this machine can be frozen, whatever it is told; and it is never told to freeze. Its request parser
// alone, under the sanitizers, is fuzzed by `make -C qga/freezer fuzz`.
import { chmodSync, chownSync, copyFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { connectLines, type LineClient } from '../../support/line-client.js';
import { piecesOf, readCorpus } from '../corpus.js';
import { parts, type Input } from '../input.js';
import { check, Finding, type Runner, type Target, type Verdict } from '../target.js';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const NOBODY = 65_534;
const ANSWER_LIMIT_MS = 5000;

export const freezerProgram: Target = {
  name: 'freezer',
  pieces: () => piecesOf(readCorpus('freezer'), 'sent').filter((piece) => !isForbidden(piece.toString('latin1'))),
  start: startProgram,
};

/** Nothing that could freeze, though this freezer could not. */
const isForbidden = (text: string): boolean => /free/i.test(text);

async function startProgram(): Promise<Runner> {
  const folder = mkdtempSync('/dev/shm/fsb-fuzz-');
  const program = join(folder, 'freezer');
  copyFileSync(join(root, 'build/freezer'), program);
  chmodSync(folder, 0o755);
  const run = join(folder, 'run');
  mkdirSync(run);
  chownSync(run, NOBODY, NOBODY);
  const words = ['--foreground', '--no-kill', '--socket', join(run, 'sock'), '--marker', join(run, 'frozen')];
  const unprivileged = [
    '--reuid',
    String(NOBODY),
    '--regid',
    String(NOBODY),
    '--clear-groups',
    '--bounding-set=-all',
    '--inh-caps=-all',
    '--no-new-privs',
  ];
  const child = execa('setpriv', [...unprivileged, program, ...words, '--rcu-knob', join(run, 'rcu')], {
    reject: false,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const end = async (): Promise<void> => {
    child.kill('SIGKILL');
    await child;
    rmSync(folder, { recursive: true, force: true });
  };
  let client: LineClient | undefined;
  try {
    for (let tries = 0; client === undefined; tries++) {
      if (tries === 100 || child.exitCode !== null)
        throw new Error(`the freezer does not answer: ${child.exitCode === null ? '' : (await child).stderr}`);
      await sleep(50);
      client = await connectLines(join(run, 'sock')).catch(() => undefined);
    }
  } catch (error) {
    await end();
    throw error;
  }
  const first = client;
  return {
    run: (input) => speak(input, join(run, 'sock'), first),
    async [Symbol.asyncDispose]() {
      first[Symbol.dispose]();
      await end();
    },
  };
}

async function speak(input: Input, path: string, other: LineClient): Promise<Verdict> {
  const text = input.bytes.toString('latin1').replace(/free/gi, 'fire');
  using client = await connectLines(path);
  for (const part of parts({ ...input, bytes: Buffer.from(text, 'latin1') })) client.socket.write(part);
  client.socket.write('\nhello\n');
  let hellos = 1 + text.split('\n').filter((line) => line === 'hello').length;
  let accepted = false;
  while (hellos > 0) {
    const line = await client.line(ANSWER_LIMIT_MS).catch((error: unknown) => {
      // Too many syntax errors, or a line too long: its right.
      if (error instanceof Error && error.message.includes('connection closed')) return undefined;
      throw new Finding(`no answer: ${String(error)}`);
    });
    if (line === undefined) break;
    check(/^(ok|error|fs|event) [!-~]+( [!-~]+)*$/.test(line), () => `none of its lines: ${JSON.stringify(line)}`);
    if (line.startsWith('ok hello ')) hellos--;
    else if (line.startsWith('ok')) accepted = true;
  }
  const [hello = ''] = await other.ask('hello', ANSWER_LIMIT_MS);
  check(hello.startsWith('ok hello 1 '), 'the next good request is not answered rightly');
  return accepted ? 'accepted' : 'rejected';
}
