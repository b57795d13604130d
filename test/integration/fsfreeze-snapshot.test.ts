// The second name of the guest's executable (build/fsfreeze-agent): what it is called decides which program runs. No
// freezer is in reach, and nothing is frozen.
import { execa } from 'execa';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { requires } from '../support/requires.js';
import { scratch, type Scratch } from '../support/scratch.js';

const program = new URL('../../build/fsfreeze-agent', import.meta.url).pathname;
const bundle = new URL('../../build/agent.cjs', import.meta.url).pathname;

const writer = `#!/bin/sh
# fsfreeze-writer: phases=prepare freeze verify thaw post abort
# fsfreeze-writer: guarantee=held
# fsfreeze-writer: covers=/
echo "$1" >>"$(dirname "$0")/../journal"
`;

let folder: Scratch;
beforeEach(() => {
  if (!existsSync(program)) throw new Error(`${program} is missing: run npm run build first`);
  folder = scratch();
  for (const name of ['run', 'writers']) mkdirSync(folder.path(name), { mode: 0o755 });
  symlinkSync(program, folder.path('fsfreeze-snapshot'));
  writeFileSync(folder.path('writers/app'), writer);
  chmodSync(folder.path('writers/app'), 0o755);
  const own = { 'runtime-dir': 'run', 'local-socket': 'local', 'writer-folders': 'writers' };
  const lines = Object.entries(own).map(([key, name]) => `${key}=${folder.path(name)}\n`);
  writeFileSync(folder.path('conf'), `[bridge]\nfreezer=${folder.path('none')}\n${lines.join('')}`);
});
afterEach(() => {
  folder[Symbol.dispose]();
});

async function run(...words: readonly string[]) {
  const { exitCode, stdout, stderr } = await execa(
    folder.path('fsfreeze-snapshot'),
    ['-c', folder.path('conf'), ...words],
    {
      stdin: 'ignore',
      reject: false,
      timeout: 60_000,
    },
  );
  return { exitCode, stdout, stderr };
}

const journal = (): string => (existsSync(folder.path('journal')) ? readFileSync(folder.path('journal'), 'utf8') : '');

requires('root')('fsfreeze-snapshot', () => {
  test('is told from the agent by its name, and the agent has nothing of it', async () => {
    expect(await run('--version')).toMatchObject({
      exitCode: 0,
      stdout: expect.stringMatching(/^fsfreeze-snapshot /) as string,
    });
    const agent = await execa(program, ['--version']);
    expect(agent.stdout).toMatch(/^fsfreeze-agent /);
    expect(readFileSync(bundle, 'utf8')).not.toContain('usage: fsfreeze-snapshot');
  });

  test('lists the writers as the agent does, with what they cover, and by itself where none runs', async () => {
    const listed = { name: 'app', kind: 'described', guarantee: 'held', covers: ['/'] };
    const alone = await run('writers', '--json');
    expect(JSON.parse(alone.stdout)).toMatchObject({ from: 'folders', note: 'no agent runs here', writers: [listed] });
    const agent = spawn(program, ['-c', folder.path('conf'), '-m', 'unix-listen', '-p', folder.path('channel')], {
      stdio: 'ignore',
    });
    const exit = once(agent, 'exit');
    try {
      await expect.poll(() => existsSync(folder.path('local')), { timeout: 20_000 }).toBe(true);
      const { exitCode, stdout } = await run('writers', 'list', '--json');
      expect([exitCode, JSON.parse(stdout)]).toMatchObject([0, { from: 'agent', writers: [listed] }]);
    } finally {
      agent.kill('SIGTERM');
      await exit;
    }
    expect((await run('writers')).stdout).toMatch(
      /^app {2}\/.*\n {2}described, required, rank 50, held: prepare .*\n {2}covers \/\n/,
    );
  });

  test('tests a writer: what it told, how long it took, what it is worth', async () => {
    const { exitCode, stdout } = await run('writers', 'test', 'app');
    expect(exitCode).toBe(0);
    expect(journal()).toBe('prepare\nfreeze\nverify\nverify\nthaw\npost\n');
    expect(stdout).toMatch(/^ {2}freeze +\d+\.\d ms {2}exit 0$/m);
    expect(stdout).toContain('verified; a snapshot can reach application with it');
    expect(stdout).toContain('there is no freezer here');
  });

  test('tells what takes over two seconds, and lets go at a signal', async () => {
    const child = spawn(
      folder.path('fsfreeze-snapshot'),
      ['-c', folder.path('conf'), 'writers', 'test', 'app', '--hold', '60'],
      {
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    const exit = once(child, 'exit');
    let told = '';
    child.stderr.on('data', (text: Buffer) => (told += text.toString()));
    await expect.poll(() => told, { timeout: 20_000 }).toContain('app: hold, 2 s\n');
    child.kill('SIGINT');
    expect(await exit).toEqual([69, null]);
    expect(journal()).toBe('prepare\nfreeze\nverify\nthaw\nabort\n');
    expect(readdirSync(folder.path('run/sessions'))).toEqual([]);
  });

  test('says by its exit code that a writer failed, or would not be run', async () => {
    writeFileSync(folder.path('writers/app'), writer.replace('guarantee=held', 'guarantee=yes'));
    expect(await run('writers', 'test', 'app')).toMatchObject({
      exitCode: 1,
      stderr: expect.stringContaining('bad description') as string,
    });
    expect((await run('writers', 'lint', folder.path('writers/app'))).exitCode).toBe(1);
    expect(journal()).toBe('');
    writeFileSync(folder.path('writers/app'), `${writer}[ "$1" != verify ]\n`);
    expect((await run('writers', 'test', 'app')).exitCode).toBe(1);
    writeFileSync(folder.path('writers/app'), `${writer}[ "$1" != thaw ]\n`);
    const { exitCode, stdout } = await run('writers', 'test', 'app');
    expect([exitCode, stdout]).toEqual([6, expect.stringContaining('NOT LET GO: app: thaw failed (exit 1)')]);
  });
});
