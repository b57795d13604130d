// Many residents at once: what the kernel sees of a session between the first word to hold and the last one to let go,
// and what the agent says on stderr. The agent and its writers are real processes, traced by strace(1); no filesystem is
// frozen: the freezer is a fake one.
import { afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { chmodSync, copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { tmpdir } from 'node:os';
import { execa } from 'execa';
import { described, FreezeHarness } from '../support/freeze-harness.js';
import { buildMortalAgent } from '../support/mortal-agent.js';
import { requires } from '../support/requires.js';

const COUNT = 25;

let harness: FreezeHarness;
let programDir: string;
let agent: string;
let waits: string;
beforeAll(async () => {
  programDir = mkdtempSync(join(tmpdir(), 'fsb-many-'));
  agent = await buildMortalAgent(programDir);
  waits = join(programDir, 'waits');
  await execa('cc', ['-O2', '-o', waits, join(import.meta.dirname, '../fixtures/writers/waits.c')]);
  return () => {
    rmSync(programDir, { recursive: true, force: true });
  };
});
beforeEach(async () => {
  harness = new FreezeHarness();
  for (let index = 0; index < COUNT; index++) resident(`r${index}`);
  await harness.restartFreezer();
});
afterEach(async () => {
  await harness[Symbol.asyncDispose]();
});

function resident(name: string): void {
  const path = join(harness.dir, 'first', name);
  copyFileSync(waits, path);
  chmodSync(path, 0o755);
  const phases = ['prepare', 'freeze', 'verify', 'thaw'];
  writeFileSync(`${path}.json`, JSON.stringify({ phases, resident: true, guarantee: 'held' }));
}

/** Runs a whole session in an agent of its own. Gives its stderr, and the calls that make processes, in order. */
async function traced(): Promise<{ readonly stderr: string; readonly calls: readonly string[] }> {
  const trace = join(programDir, 'trace');
  const calls = 'trace=execve,execveat,fork,vfork,clone,clone3,write';
  const { stderr, stdout } = await execa(
    'strace',
    ['-f', '-qq', '-e', calls, '-o', trace, process.execPath, agent, 'thaw', JSON.stringify(harness.options)],
    { env: {}, extendEnv: false },
  );
  expect(stdout).toBe('frozen\nthawed');
  const lines = readFileSync(trace, 'utf8').split('\n');
  // A thread is no process; what is written matters only to know where a session is.
  return { stderr, calls: lines.filter((line) => !/CLONE_THREAD/.test(line)) };
}

/** Programs and processes that were started while writers held. */
function startedWhileHeld(calls: readonly string[]): readonly string[] {
  const first = calls.findIndex((line) => line.includes('write(') && line.includes('"freeze\\n"'));
  const last = calls.findLastIndex((line) => line.includes('write(') && line.includes('"thaw ok\\n"'));
  expect(first).toBeGreaterThan(0);
  expect(last).toBeGreaterThan(first);
  return calls.slice(first, last).filter((line) => /\b(execve|execveat|fork|vfork|clone3?)\(/.test(line));
}

requires('strace', 'cc')('as the kernel sees it', () => {
  test('no program is started from the first freeze to the last thaw, and nothing is said on stderr', async () => {
    const { stderr, calls } = await traced();
    expect(stderr).toBe('');
    // The kernel is looked at where it matters: the residents themselves were seen to be started.
    expect(calls.filter((line) => /execve\("[^"]*\/first\/r\d+"/.test(line))).toHaveLength(COUNT);
    expect(startedWhileHeld(calls)).toEqual([]);
  });

  test('a hook that is started in between is seen', async () => {
    harness.hook('hook', `${described({ phases: 'freeze thaw', guarantee: '', rank: 60 })}:`);
    const { calls } = await traced();
    expect(startedWhileHeld(calls).join('\n')).toMatch(/execve\("[^"]*\/first\/hook"/);
  });
});
