// The agent dies at any instant, and what its writers hold is let go by the agent started anew: what was noted, what was
// not noted yet, what was cut short, and what dies again meanwhile. Agents and writers are real processes; no filesystem
// is frozen: the freezer is a fake one.
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { spawn, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { tmpdir } from 'node:os';
import { recoverSessions } from '../../src/freeze/session/recovery.js';
import { described, FreezeHarness } from '../support/freeze-harness.js';
import { alive, buildMortalAgent, MortalAgent, processesWith } from '../support/mortal-agent.js';

let harness: FreezeHarness;
let programDir: string;
let program: string;
beforeAll(async () => {
  programDir = mkdtempSync(join(tmpdir(), 'fsb-recovery-'));
  program = await buildMortalAgent(programDir);
  return () => {
    rmSync(programDir, { recursive: true, force: true });
  };
});
beforeEach(async () => {
  harness = new FreezeHarness();
  await harness.restartFreezer();
});
afterEach(async () => {
  for (const pid of ours()) process.kill(pid, 'SIGKILL');
  await harness[Symbol.asyncDispose]();
});

const ours = (): number[] => processesWith(`FSFREEZE_SCRATCH=${harness.dir}/`);
const sessions = (): string[] => readdirSync(join(harness.dir, 'run/sessions'));
const thaws = (): string[] => harness.journal.filter((line) => line.startsWith('thaw'));

/** Takes its hold slowly, in a file that only its thaw removes. */
function holder(name: string, rank: number): void {
  const held = join(harness.dir, `held.${name}`);
  const body = `case $1 in freeze) sleep 0.05; : >'${held}';; verify) [ -e '${held}' ];; thaw) rm -f '${held}'; log "$FSFREEZE_OUTCOME";; esac`;
  harness.hook(name, `${described({ rank })}${body}`);
}

/** The same in one process, which holds a lock that ends with it. */
function resident(name: string, rank: number): void {
  const lock = join(harness.dir, `lock.${name}`);
  writeFileSync(lock, '');
  const body = `exec 9<'${lock}'; while read -r phase rest; do case $phase in freeze) sleep 0.05; flock 9;; thaw) flock --unlock 9;; esac; echo ok; done`;
  harness.hook(name, `${described({ rank, resident: true, phases: 'prepare freeze verify thaw' })}${body}`);
}

const held = (): string[] =>
  readdirSync(harness.dir).filter(
    (name) =>
      name.startsWith('held.') ||
      (name.startsWith('lock.') && spawnSync('flock', ['--nonblock', join(harness.dir, name), 'true']).status !== 0),
  );

/** As a dead agent leaves it. */
function left(session: string, lines: readonly (object | string)[], head: object | string = {}): string {
  const dir = join(harness.dir, 'run/sessions', session);
  mkdirSync(dir, { recursive: true });
  const dead = { version: 1, session, requester: 'r', pid: 999_999_999, startTime: '1', leaseMs: 1, mountpoints: [] };
  writeFileSync(join(dir, 'head.json'), typeof head === 'string' ? head : JSON.stringify({ ...dead, ...head }));
  const text = lines.map((line) => (typeof line === 'string' ? line : `${JSON.stringify(line)}\n`)).join('');
  writeFileSync(join(dir, 'writers'), text);
  return dir;
}

const startedLine = (name: string, more: object = {}): object => ({
  event: 'started',
  path: join(harness.dir, 'first', name),
  name,
  folder: join(harness.dir, 'first'),
  style: 'bridge',
  kind: 'described',
  rank: 50,
  limitMs: 1_000,
  ...more,
});

test('killed at random instants of a whole session: nothing is held, nothing runs, nothing is left', async () => {
  holder('a', 10);
  holder('b', 20);
  resident('r', 20);
  holder('c', 30);
  // How long one takes when nobody kills it.
  const started = performance.now();
  await using whole = new MortalAgent(program, 'thaw', harness.options);
  await whole.ended();
  let tookMs = performance.now() - started;
  expect(whole.said).toBe('frozen\nthawed\n');
  expect(held()).toEqual([]);

  const RUNS = 20;
  let fired = 0;
  for (let run = 0; run < RUNS; run++) {
    await using agent = new MortalAgent(program, 'thaw', harness.options);
    // Stratified, so that every part of it is hit; its start-up, the first fifth or so, is not.
    const instant = tookMs * (0.2 + (0.8 * (run + Math.random())) / RUNS);
    await new Promise((resolve) => setTimeout(resolve, instant));
    await agent.kill();
    const where = `killed after ${Math.round(instant)} of ${Math.round(tookMs)} ms`;
    if (!agent.said.includes('thawed')) fired++;
    // On a busy machine the first one may have taken far longer than the others.
    else tookMs = Math.min(tookMs, instant);
    await expect.poll(() => harness.freezer.state, { message: where }).toBe('idle');
    const recovering = performance.now();
    const recovered = await recoverSessions(harness.options);
    expect(performance.now() - recovering, where).toBeLessThan(5_000);
    for (const { problem, writers } of recovered) {
      expect(problem, where).toBeUndefined();
      expect(
        writers.filter(({ released }) => !released),
        where,
      ).toEqual([]);
    }
    expect(held(), where).toEqual([]);
    await expect.poll(ours, { message: where }).toEqual([]);
    expect(sessions(), where).toEqual([]);
  }
  expect(fired).toBeGreaterThan(RUNS / 2);
}, 180_000);

test.each(['hold', 'frozen'] as const)(
  'it dies in %s: what it held is let go in reverse, and not before',
  async (step) => {
    harness.hook('a', `${described({ rank: 10 })}log "$FSFREEZE_OUTCOME"`);
    const hang = step === 'hold' ? '[ "$1" = freeze ] && exec sleep 600; exit 0' : 'exit 0';
    harness.hook('h', `log "$FSFREEZE_OUTCOME"; ${hang}`);
    harness.hook('z', `${described({ rank: 90 })}log "$FSFREEZE_OUTCOME"`);
    await using agent = new MortalAgent(program, 'hold', harness.options);
    if (step === 'frozen') await expect.poll(() => agent.said, { timeout: 5_000 }).toBe('frozen\n');
    else await expect.poll(() => harness.journal, { timeout: 5_000 }).toContain('freeze h');
    // It lives.
    expect(await recoverSessions(harness.options)).toEqual([]);
    expect(harness.freezer.frozen).toHaveLength(step === 'frozen' ? 2 : 0);
    await agent.kill();
    const [recovered] = await recoverSessions(harness.options);
    const expected = step === 'frozen' ? ['z', 'h', 'a'] : ['h', 'a'];
    expect(recovered).toMatchObject({ session: 'dead', requester: 'agent', ended: false });
    expect(recovered?.writers.map(({ name, released }) => [name, released])).toEqual(
      expected.map((name) => [name, true]),
    );
    expect(harness.freezer.frozen).toEqual([]);
    expect(thaws()).toEqual(expected.map((name) => `thaw ${name} broken`));
    await expect.poll(ours).toEqual([]);
    expect(sessions()).toEqual([]);
    expect(await recoverSessions(harness.options)).toEqual([]);
  },
);

test('it dies in the middle of the release: those that were let go are not let go twice', async () => {
  for (const [name, rank] of [
    ['a', 10],
    ['b', 20],
    ['c', 30],
  ] as const) {
    const hang = name === 'b' ? '[ -e "$0.again.sample" ] || { : >"$0.again.sample"; sleep 600; }' : ':';
    harness.hook(name, `${described({ rank })}log "$FSFREEZE_OUTCOME"; [ "$1" = thaw ] || exit 0; ${hang}`);
  }
  await using agent = new MortalAgent(program, 'thaw', harness.options);
  await expect.poll(thaws, { timeout: 5_000 }).toEqual(['thaw c ok', 'thaw b ok']);
  await agent.kill();
  const [recovered] = await recoverSessions(harness.options);
  expect(recovered).toMatchObject({ session: 'dead', ended: false });
  // The one under way had to be ended: whether it was done cannot be known.
  expect(thaws()).toEqual(['thaw c ok', 'thaw b ok', 'thaw b broken', 'thaw a broken']);
  await expect.poll(ours).toEqual([]);
  expect(sessions()).toEqual([]);
});

test('its successor dies, too: the third one goes on where that one was', async () => {
  for (const [name, rank] of [
    ['a', 10],
    ['b', 20],
    ['c', 30],
  ] as const) {
    const hang = name === 'b' ? '[ -e "$0.again.sample" ] || { : >"$0.again.sample"; sleep 600; }' : ':';
    harness.hook(name, `${described({ rank })}log "$FSFREEZE_OUTCOME"; [ "$1" = thaw ] || exit 0; ${hang}`);
  }
  await using agent = new MortalAgent(program, 'hold', harness.options);
  await expect.poll(() => agent.said, { timeout: 5_000 }).toBe('frozen\n');
  await agent.kill();
  await using second = new MortalAgent(program, 'recover', harness.options);
  await expect.poll(thaws, { timeout: 5_000 }).toEqual(['thaw c broken', 'thaw b broken']);
  await second.kill();
  await recoverSessions(harness.options);
  expect(thaws()).toEqual(['thaw c broken', 'thaw b broken', 'thaw b broken', 'thaw a broken']);
  await expect.poll(ours).toEqual([]);
  expect(sessions()).toEqual([]);
});

test.each(['hangs', 'ignores SIGTERM'])(
  'a thaw that %s is killed at its limit, and the next one has its turn',
  async (what) => {
    const hang = what === 'hangs' ? 'sleep 600' : "trap '' TERM; while :; do sleep 1; done";
    harness.hook('a', `log $(date +%s%3N)`);
    harness.hook('b', `log $(date +%s%3N); ${hang}`);
    left('s', [startedLine('a', { rank: 10 }), startedLine('b', { rank: 20, limitMs: 500 })]);
    const started = Date.now();
    const [recovered] = await recoverSessions(harness.options);
    expect(recovered?.writers).toMatchObject([
      { name: 'b', released: false },
      { name: 'a', released: true },
    ]);
    const [first = 0, next = 0] = thaws().map((line) => Number(line.split(' ')[2]));
    expect(first - started).toBeLessThan(5_000);
    // Its limit, the grace, and 1 s for the turn.
    expect(next - first).toBeLessThan(500 + 250 + 1_000);
    await expect.poll(ours).toEqual([]);
    // Kept, for the next time.
    expect(sessions()).toEqual(['s']);
  },
);

test('equal rank side by side, plain hooks one by one, in reverse', async () => {
  const slow = 'log in; sleep 0.4; log out';
  for (const name of ['p1', 'p2', 'd1', 'd2']) harness.hook(name, slow);
  left('s', [
    startedLine('p1', { kind: 'plain' }),
    startedLine('p2', { kind: 'plain' }),
    startedLine('d1'),
    startedLine('d2'),
  ]);
  const started = performance.now();
  await recoverSessions(harness.options);
  expect(performance.now() - started).toBeLessThan(1_500);
  expect(thaws().filter((line) => line.includes(' p'))).toEqual([
    'thaw p2 in',
    'thaw p2 out',
    'thaw p1 in',
    'thaw p1 out',
  ]);
});

test('leftovers of two sessions: the youngest first, each with its own scratch', async () => {
  harness.hook('a', 'log "$FSFREEZE_SESSION $FSFREEZE_SCRATCH"');
  const first = left('a-first', [startedLine('a'), { event: 'ended' }], { beganMs: 1_000 });
  const second = left('z-second', [startedLine('a')], { beganMs: 2_000 });
  const recovered = await recoverSessions(harness.options);
  expect(recovered.map(({ session, ended }) => [session, ended])).toEqual([
    ['z-second', false],
    ['a-first', true],
  ]);
  expect(thaws()).toEqual([`thaw a z-second ${second}/scratch/a`, `thaw a a-first ${first}/scratch/a`]);
  expect(sessions()).toEqual([]);
});

describe('what cannot be read', () => {
  test.each([
    ['a line cut short', '{"event":"rel'],
    ['a line that is none of ours', '\u0000\u0000\n'],
  ])('%s is passed over, and what is noted after it is found', async (_name, garbage) => {
    const once = join(harness.dir, 'once');
    harness.hook('a', `log; [ -e '${once}' ]`);
    harness.hook('b', 'log');
    left('s', [startedLine('a', { rank: 10 }), startedLine('b', { rank: 20 }), garbage]);
    await recoverSessions(harness.options);
    expect(thaws()).toEqual(['thaw b', 'thaw a', 'thaw a']);
    writeFileSync(once, '');
    await recoverSessions(harness.options);
    // b's release was noted behind it.
    expect(thaws().slice(3)).toEqual(['thaw a']);
    expect(sessions()).toEqual([]);
  });

  test.each(['', '{"version":1,', '{"version":9}'])('a head of %j keeps nobody from being released', async (head) => {
    harness.hook('a', 'log "$FSFREEZE_OUTCOME"');
    left('s', [startedLine('a')], head);
    expect(await recoverSessions(harness.options)).toMatchObject([
      { session: 's', ended: false, writers: [{ name: 'a', released: true }] },
    ]);
    expect(thaws()).toEqual(['thaw a broken']);
    expect(sessions()).toEqual([]);
  });

  test('a session that was being made when its process died is removed; that of a living one is not', async () => {
    const dir = join(harness.dir, 'run/sessions');
    mkdirSync(join(dir, '.new-999999999-1-s'), { recursive: true });
    const startTime = readFileSync('/proc/self/stat', 'latin1').split(') ')[1]?.split(' ')[19] ?? '';
    mkdirSync(join(dir, `.new-${process.pid}-${startTime}-t`), { recursive: true });
    appendFileSync(join(dir, 'stray'), '');
    expect(await recoverSessions(harness.options)).toEqual([]);
    expect(sessions()).toEqual([`.new-${process.pid}-${startTime}-t`, 'stray']);
  });
});

describe('processes that a dead agent left', () => {
  async function leftRunning(env: Record<string, string>, script = 'exec sleep 600'): Promise<number> {
    const child = spawn('/bin/sh', ['-c', script], { detached: true, stdio: 'ignore', env });
    child.unref();
    await new Promise((resolve) => setTimeout(resolve, 100));
    return child.pid ?? 0;
  }
  const startTimeOf = (pid: number): string =>
    readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ')[19] ?? '';
  const scratch = (name: string): string => join(harness.dir, 'run/sessions/s/scratch', name);

  test('one that was noted is ended before its thaw; another one with its pid is left alone', async () => {
    harness.hook('a', 'log');
    const mine = await leftRunning({ FSFREEZE_SCRATCH: `${harness.dir}/` });
    const other = await leftRunning({ FSFREEZE_SCRATCH: `${harness.dir}/` });
    const path = join(harness.dir, 'first/a');
    left('s', [
      startedLine('a'),
      { event: 'process', path, pid: mine, startTime: startTimeOf(mine) },
      { event: 'process', path, pid: other, startTime: String(Number(startTimeOf(other)) - 1) },
    ]);
    await recoverSessions(harness.options);
    expect(alive(mine)).toBe(false);
    expect(alive(other)).toBe(true);
    expect(thaws()).toEqual(['thaw a']);
  });

  test('one that ignores SIGTERM is killed, with its children', async () => {
    harness.hook('a', 'log');
    const env = { FSFREEZE_SCRATCH: `${harness.dir}/`, PATH: '/usr/bin:/bin' };
    const mine = await leftRunning(env, "trap '' TERM; sleep 600 & while :; do sleep 1; done");
    left('s', [
      startedLine('a'),
      { event: 'process', path: join(harness.dir, 'first/a'), pid: mine, startTime: startTimeOf(mine) },
    ]);
    await recoverSessions(harness.options);
    await expect.poll(ours).toEqual([]);
  });

  test('one whose pid was not noted yet is found by what it was started with', async () => {
    harness.hook('a', 'log');
    const path = join(harness.dir, 'first/a');
    const unnoted = { FSFREEZE_SESSION: 's', FSFREEZE_PHASE: 'freeze', FSFREEZE_SCRATCH: scratch('a') };
    const mine = await leftRunning(unnoted);
    const ofOther = await leftRunning({ ...unnoted, FSFREEZE_SESSION: 't' });
    const otherPhase = await leftRunning({ ...unnoted, FSFREEZE_PHASE: 'prepare' });
    left('s', [startedLine('a'), { event: 'starting', path, name: 'a', phase: 'freeze' }]);
    await recoverSessions(harness.options);
    expect([mine, ofOther, otherPhase].map(alive)).toEqual([false, true, true]);
  });

  test('what a freeze that is over left in the background is left to its thaw', async () => {
    const pidFile = join(harness.dir, 'pid');
    harness.hook(
      'a',
      `${described({})}case $1 in freeze) sleep 600 & echo $! >'${pidFile}';; thaw) kill "$(cat '${pidFile}')" && log;; esac; exit 0`,
    );
    await using agent = new MortalAgent(program, 'hold', harness.options);
    await expect.poll(() => agent.said, { timeout: 5_000 }).toBe('frozen\n');
    await agent.kill();
    expect(alive(Number(readFileSync(pidFile, 'utf8')))).toBe(true);
    await recoverSessions(harness.options);
    expect(thaws()).toEqual(['thaw a']);
    await expect.poll(() => alive(Number(readFileSync(pidFile, 'utf8')))).toBe(false);
  });
});

test('a hook that became unsafe is not run by the successor either, and is told of', async () => {
  const path = harness.hook('a', 'log');
  left('s', [startedLine('a'), startedLine('gone')]);
  chmodSync(path, 0o777);
  const [recovered] = await recoverSessions(harness.options);
  expect(recovered?.writers).toEqual([
    { name: 'gone', path: join(harness.dir, 'first/gone'), released: false, reason: 'not started: it is not there' },
    {
      name: 'a',
      path,
      released: false,
      reason: `not started: ${path} is writable by others (mode 777): chmod go-w ${path}`,
    },
  ]);
  expect(harness.journal).toEqual([]);
  expect(existsSync(join(harness.dir, 'run/sessions/s'))).toBe(true);
});

test('a freezer that does not answer keeps the writers waiting for less than 5 s', async () => {
  harness.hook('a', 'log');
  left('s', [startedLine('a')]);
  harness.freezer.silent = true;
  let toldAfterMs = Infinity;
  const started = performance.now();
  await recoverSessions(harness.options, () => {
    toldAfterMs = performance.now() - started;
  });
  expect(thaws()).toEqual(['thaw a']);
  expect(toldAfterMs).toBeLessThan(4_000);
});
