// Resident writers, as real processes: what they are asked, when they let go, and every way in which one misbehaves.
// No filesystem is frozen: the freezer is a fake one.
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { tmpdir } from 'node:os';
import type { FreezeReport, FreezeRequest, WriterReport } from '../../src/consistency.js';
import { QuiesceError } from '../../src/errors.js';
import type { CoordinatorOptions } from '../../src/freeze/options.js';
import { recoverSessions } from '../../src/freeze/session/recovery.js';
import { described, FreezeHarness } from '../support/freeze-harness.js';
import { alive, buildMortalAgent, MortalAgent, processesWith } from '../support/mortal-agent.js';

let harness: FreezeHarness;
let programDir: string;
let program: string;
beforeAll(async () => {
  programDir = mkdtempSync(join(tmpdir(), 'fsb-resident-'));
  program = await buildMortalAgent(programDir);
  return () => {
    rmSync(programDir, { recursive: true, force: true });
  };
});
beforeEach(() => {
  harness = new FreezeHarness();
});
afterEach(async () => {
  try {
    // Killed, and not waited for: what a resident had forked.
    await expect.poll(left, { message: 'processes left behind' }).toEqual([]);
  } finally {
    for (const pid of left()) process.kill(pid, 'SIGKILL');
    await harness[Symbol.asyncDispose]();
  }
});

const left = (): number[] => processesWith(`FSFREEZE_SCRATCH=${harness.dir}/`);

const generous = { prepare: 10_000, freeze: 10_000, verify: 10_000, thaw: 10_000 };
const short = { prepare: 5_000, freeze: 5_000, verify: 800, thaw: 800 };
const phases = 'prepare freeze verify thaw';
const resident = (more = {}): string => described({ phases, resident: true, ...more });

/** A good one, with a case of its own for each phase; `$$` is in `PATH.pid.sample`. */
function reader(
  cases: Partial<Record<'start' | 'prepare' | 'freeze' | 'verify' | 'thaw' | 'end', string>> = {},
): string {
  const one = (phase: 'prepare' | 'freeze' | 'verify' | 'thaw'): string => `${phase}) ${cases[phase] ?? 'echo ok'};;`;
  return [
    'echo $$ >"$0.pid.sample"',
    cases.start ?? ':',
    'while read -r phase outcome; do',
    'log "$phase${outcome:+ $outcome}"',
    'case $phase in',
    ...(['prepare', 'freeze', 'verify', 'thaw'] as const).map(one),
    'esac',
    'done',
    cases.end ?? 'log end',
  ].join('\n');
}

const pidOf = (name: string): number => Number(readFileSync(join(harness.dir, 'first', `${name}.pid.sample`), 'utf8'));

async function attempt(
  request: Partial<FreezeRequest> = {},
  options: CoordinatorOptions = { writerLimitsMs: short },
  whileFrozen: () => Promise<void> = async () => {},
): Promise<{ report: FreezeReport; tookMs: number; error?: QuiesceError }> {
  const coordinator = await harness.start({}, options);
  const started = performance.now();
  try {
    const session = await coordinator.freeze({ requester: 'test', leaseMs: 5_000, require: 'auto', ...request });
    await whileFrozen();
    const report = await session.thaw();
    return { report, tookMs: performance.now() - started };
  } catch (error) {
    if (!(error instanceof QuiesceError)) throw error;
    return { report: error.facts['report'] as FreezeReport, tookMs: performance.now() - started, error };
  } finally {
    await coordinator.close();
  }
}

function writer(report: FreezeReport, name: string): WriterReport {
  const found = report.writers.find((one) => one.name === name);
  if (found === undefined) throw new Error(`no writer ${name} in the report`);
  return found;
}

describe('one that behaves', () => {
  test('is one process from prepare to thaw, asked in its turn, and proves its hold', async () => {
    harness.hook('a', `${described({ rank: 10 })}log`);
    harness.hook('r', `${resident({ rank: 20 })}${reader()}`);
    harness.hook('z', `${described({ rank: 30 })}log`);
    const { report } = await attempt();
    expect(report).toMatchObject({ outcome: 'ok', level: 'application' });
    expect(writer(report, 'r')).toMatchObject({ kind: 'resident', verdict: 'verified' });
    expect(writer(report, 'r').phases.map(({ phase }) => phase)).toEqual([
      'prepare',
      'freeze',
      'verify',
      'verify',
      'thaw',
    ]);
    const ofR = harness.journal.filter((line) => line.includes(' r '));
    expect(ofR).toEqual(
      ['prepare', 'freeze', 'verify', 'verify', 'thaw ok', 'end'].map((word) => `resident r ${word}`),
    );
    const order = harness.journal.filter((line) => /^(freeze|thaw)|r (freeze|thaw)/.test(line));
    expect(order).toEqual(['freeze a', 'resident r freeze', 'freeze z', 'thaw z', 'resident r thaw ok', 'thaw a']);
    expect(alive(pidOf('r'))).toBe(false);
  });

  test('is told of a failure, and lets go', async () => {
    harness.hook('r', `${resident({ rank: 20 })}${reader()}`);
    harness.hook('z', `${described({ rank: 30 })}exit 1`);
    await attempt();
    expect(harness.journal.at(-2)).toBe('resident r thaw failed');
    expect(harness.journal.at(-1)).toBe('resident r end');
  });

  test('is ended without a thaw if its freeze was never asked for', async () => {
    harness.hook('r', `${resident({ rank: 20 })}${reader()}`);
    harness.hook('a', `${described({ rank: 10 })}exit 1`);
    await attempt();
    expect(harness.journal).toEqual(['resident r prepare', 'resident r end']);
  });

  test('says by exit 3 that nothing of it runs here', async () => {
    harness.hook('r', `${resident()}echo no server here >&2; exit 3`);
    const { report } = await attempt();
    expect(report).toMatchObject({ outcome: 'ok', level: 'filesystem' });
    expect(writer(report, 'r')).toMatchObject({ verdict: 'not-applicable', reason: 'no server here' });
  });

  test('says so as late as in freeze, however long a hold of it would outlive it', async () => {
    harness.hook('r', `${resident({ lingers: 600 })}${reader({ freeze: 'echo it has just stopped >&2; exit 3' })}`);
    harness.hook('z', `${described({})}log`);
    const { report } = await attempt();
    expect(writer(report, 'r')).toMatchObject({ verdict: 'not-applicable', reason: 'it has just stopped' });
    expect(report).toMatchObject({ outcome: 'ok', level: 'application' });
    expect(harness.coordinator.unreleased).toEqual([]);
  });

  test('does not say so by the exit code with which it ends when it is ended for a fault', async () => {
    const leaves = { start: "trap 'exit 3' TERM", freeze: 'echo about to hold' };
    harness.hook('r', `${resident()}${reader(leaves)}`);
    harness.hook('z', `${described({})}log`);
    const { report } = await attempt({ require: 'filesystem' });
    expect(writer(report, 'r')).toMatchObject({
      verdict: 'failed',
      reason: 'freeze: answered "about to hold", expected "ok" or "error REASON"',
    });
    expect(report).toMatchObject({ outcome: 'incomplete', level: 'filesystem' });
  });

  test('refuses by an answer, and is told to thaw all the same', async () => {
    harness.hook('r', `${resident()}${reader({ freeze: "printf 'error the table \\033[31mis busy\\n'" })}`);
    const { report, error } = await attempt();
    expect(error?.message).toContain('the table \\u{1b}[31mis busy');
    expect(writer(report, 'r')).toMatchObject({ verdict: 'failed', reason: 'freeze: the table \\u{1b}[31mis busy' });
    expect(harness.journal.slice(-2)).toEqual(['resident r thaw failed', 'resident r end']);
  });

  test('with post is asked it when it has let go, and ended after it', async () => {
    harness.hook(
      'r',
      `${resident({ phases: `${phases} post` })}${reader()}`.replace('thaw) echo ok', 'thaw|post) echo ok'),
    );
    const { report } = await attempt();
    expect(report).toMatchObject({ outcome: 'ok', level: 'application' });
    expect(harness.journal.filter((line) => line.startsWith('resident')).slice(-3)).toEqual([
      'resident r thaw ok',
      'resident r post ok',
      'resident r end',
    ]);
    expect(writer(harness.coordinator.lastReport ?? report, 'r').phases.at(-1)).toMatchObject({ phase: 'post' });
  });

  test('with post that was never held is not asked it', async () => {
    harness.hook('r', `${resident({ phases: `${phases} post` })}echo no server here >&2; exit 3`);
    harness.hook('z', `${described({})}log`);
    const { report } = await attempt();
    expect(report).toMatchObject({ outcome: 'ok', level: 'application' });
    const { reason, verdict } = writer(harness.coordinator.lastReport ?? report, 'r');
    expect([verdict, reason]).toEqual(['not-applicable', 'no server here']);
  });

  test('knows how long a lease may be renewed', async () => {
    harness.hook('r', `${resident()}${reader({ start: 'log "$FSFREEZE_LEASE_MS $FSFREEZE_LEASE_MAX_MS"' })}`);
    await attempt({ leaseMs: 4_000 }, { leaseMaxMs: 77_000 });
    expect(harness.journal[0]).toBe('resident r 4000 77000');
  });

  test('has three descriptors, and nobody else has its standard input', async () => {
    const look = 'readlink /proc/$$/fd/* | cat >"$0.fds.sample"';
    harness.hook('a', `${resident({ rank: 10 })}${reader({ start: look })}`);
    harness.hook('b', `${described({ rank: 20 })}[ "$1" = freeze ] && ${look}; exit 0`);
    expect((await attempt()).report.level).toBe('application');
    // Beside the script itself, which the shell reads, and pipes that whoever runs the tests left open for everybody.
    const open = (name: string): string[] =>
      readFileSync(join(harness.dir, `first/${name}.fds.sample`), 'utf8')
        .trim()
        .split('\n')
        .filter((target) => target !== join(harness.dir, 'first', name) && !target.startsWith('pipe:'))
        .map((target) => target.replace(/\[.*|^\/.*\//g, ''));
    expect(open('a')).toEqual(['socket:', 'socket:', 'a.resident.err']);
    expect(open('b')).toEqual(['null', 'b.freeze.out', 'b.freeze.err']);
  });
});

describe('one that misbehaves fails with the reason, is gone, and keeps nobody waiting', () => {
  const where = ['prepare', 'freeze', 'verify', 'thaw'] as const;
  const faults: readonly (readonly [string, string, RegExp])[] = [
    ['hangs', 'sleep 600', /^not done within 800 ms$/],
    ['ignores SIGTERM', "trap '' TERM; while :; do sleep 1; done", /^not done within 800 ms$/],
    ['is stopped', 'kill -STOP $$', /^not done within 800 ms$/],
    ['talks nonsense', "printf 'yes, \\033c my lord\\n'", /^answered "yes, \\u\{1b\}c my lord", expected "ok" or/],
    ['answers twice', "printf 'ok\\nok\\n'", /spoke without being asked: "ok"/],
    ['floods on lines', 'yes ok', /spoke without being asked: "ok"/],
    ['floods without a line', 'exec tr "\\0" x </dev/zero', /^answered more than 4096 characters on one line/],
    ['floods stderr', 'exec yes too much >&2', /^printed more than 16 MiB: too much$/],
    ['dies', 'echo "out of locks" >&2; exit 7', /^its process ended \(exit 7\): out of locks$/],
    ['ends as if all were well', 'exit 0', /^its process ended \(exit 0\)$/],
    ['crashes', 'kill -SEGV $$', /^its process ended \(by SIGSEGV\)$/],
    [
      'leaves a daemon that answers in its name',
      '(sleep 0.2; echo ok; sleep 600) & exit 1',
      /^its process ended \(exit 1\)$/,
    ],
    ['closes its standard input', 'exec 0<&-; sleep 600', /^not done within 800 ms|closed its standard input/],
  ];
  describe.each(where)('in %s', (phase) => {
    test.each(faults)('%s', async (_name, what, reason) => {
      harness.hook('a', `${described({ rank: 10 })}log; [ "$1" = thaw ] && date +%s%N >"$0.at.sample"; exit 0`);
      harness.hook('r', `${resident({ rank: 20 })}${reader({ [phase]: what })}`);
      const limitMs = reason.source.includes('not done') ? 800 : 10_000;
      const { report, tookMs, error } = await attempt({}, { writerLimitsMs: { ...generous, [phase]: limitMs } });
      // The short limit, SIGTERM's grace, and what the rest takes on a busy machine.
      expect(tookMs).toBeLessThan(6_000);
      expect(alive(pidOf('r'))).toBe(false);
      const found = writer(report, 'r');
      expect(found.verdict).toBe('failed');
      expect(report.level).not.toBe('application');
      if (error !== undefined || phase === 'thaw')
        expect(found.reason?.replace(/^\w+: /, '').replace(/^(before its freeze|lost its hold): /, '')).toMatch(reason);
      // The next one has its turn, at most 1 s after the end of this one's.
      if (phase === 'prepare') return;
      expect(harness.journal.filter((line) => line === 'thaw a')).toHaveLength(1);
      const mine = found.phases.find((one) => one.phase === 'thaw');
      const next = writer(report, 'a').phases.find((one) => one.phase === 'thaw');
      expect(next?.startMs).toBeGreaterThanOrEqual(mine?.endMs ?? Infinity);
      expect((next?.startMs ?? Infinity) - (mine?.endMs ?? 0)).toBeLessThan(1_000);
    });
  });

  test('what it forks is ended with it', async () => {
    harness.hook('r', `${resident()}${reader({ freeze: "trap '' TERM; sleep 600 & echo ok" })}`);
    const { report } = await attempt();
    expect(report.level).toBe('application');
    await expect.poll(left).toEqual([]);
  });

  test('it does not end with its standard input', async () => {
    harness.hook('r', `${resident()}${reader({ end: "log end; trap '' TERM; while :; do sleep 1; done" })}`);
    const { report } = await attempt();
    expect(report.level).toBe('application');
    expect(alive(pidOf('r'))).toBe(false);
  });

  test('a flood costs no memory', async () => {
    harness.hook('r', `${resident()}${reader({ freeze: 'exec tr "\\0" x </dev/zero' })}`);
    global.gc?.();
    const before = process.memoryUsage().rss;
    await attempt();
    expect(process.memoryUsage().rss - before).toBeLessThan(64 * 1024 ** 2);
  });

  test('it cannot be started', async () => {
    harness.hook('r', resident());
    const path = join(harness.dir, 'first/r');
    const script = readFileSync(path, 'utf8').replace('#!/bin/sh', '#!/no/such/shell');
    writeFileSync(path, script);
    const { error } = await attempt();
    expect(error?.message).toMatch(/r: prepare: cannot be started: .*ENOENT/);
  });
});

describe('its hold is broken while everything is frozen', () => {
  test.each([
    ['dies', 'kill -KILL', /^lost its hold: its process ended \(by SIGKILL\)$/],
    ['speaks', '', /^lost its hold: spoke without being asked: "hello"$/],
  ])('it %s: the level falls at once, and the cut is not stopped', async (what, _kill, reason) => {
    harness.hook('a', `${described({ rank: 10 })}log`);
    const speaking =
      what === 'speaks' ? 'echo ok; (while [ ! -e "$0.now.sample" ]; do sleep 0.05; done; echo hello) &' : 'echo ok';
    harness.hook('r', `${resident({ rank: 20 })}${reader({ freeze: speaking })}`);
    const coordinator = await harness.start({}, { writerLimitsMs: short });
    const session = await coordinator.freeze({ requester: 'test', leaseMs: 5_000, require: 'auto' });
    expect(session.report.level).toBe('application');
    if (what === 'dies') process.kill(pidOf('r'), 'SIGKILL');
    else writeFileSync(join(harness.dir, 'first/r.now.sample'), '');
    await expect.poll(() => session.report.level).toBe('filesystem');
    expect(harness.freezer.frozen).toHaveLength(2);
    const report = await session.thaw();
    expect(report).toMatchObject({ outcome: 'incomplete', level: 'filesystem' });
    expect(writer(report, 'r')).toMatchObject({ verdict: 'failed', reason: expect.stringMatching(reason) as string });
    expect(harness.journal.at(-1)).toBe('thaw a');
    await coordinator.close();
  });

  test('it dies in the instant before the second verification: its daemon cannot speak for it', async () => {
    const daemon = '(while [ ! -e "$0.now.sample" ]; do sleep 0.02; done; read -r asked; echo ok; sleep 600) <&0 &';
    harness.hook('r', `${resident()}${reader({ freeze: `${daemon} echo ok` })}`);
    const { report } = await attempt({}, { writerLimitsMs: short }, async () => {
      writeFileSync(join(harness.dir, 'first/r.now.sample'), '');
      process.kill(pidOf('r'), 'SIGSTOP');
      await new Promise((resolve) => setTimeout(resolve, 200));
      process.kill(pidOf('r'), 'SIGKILL');
    });
    expect(report).toMatchObject({ outcome: 'incomplete', level: 'filesystem' });
    expect(writer(report, 'r').verdict).toBe('failed');
  });

  test('one without verify that dies is no claim either', async () => {
    const claims = described({ phases: 'prepare freeze thaw', resident: true, guarantee: '' });
    harness.hook('r', `${claims}${reader()}`);
    const { report } = await attempt({ require: 'filesystem' }, {}, async () => {
      process.kill(pidOf('r'), 'SIGKILL');
      await expect.poll(() => alive(pidOf('r'))).toBe(false);
    });
    expect(writer(report, 'r')).toMatchObject({ verdict: 'failed' });
  });
});

describe('the agent dies', () => {
  test('its standard input closes, though another hook of the agent still runs: it lets go at once', async () => {
    harness.hook('r', `${resident({ rank: 20 })}${reader()}`);
    harness.hook('z', `${described({ rank: 30 })}log; [ "$1" = freeze ] && exec sleep 600; exit 0`);
    await harness.restartFreezer();
    await using agent = new MortalAgent(program, 'hold', harness.options);
    await expect.poll(() => harness.journal, { timeout: 5_000 }).toContain('freeze z');
    const killed = performance.now();
    await agent.kill();
    await expect.poll(() => harness.journal, { interval: 5 }).toContain('resident r end');
    expect(performance.now() - killed).toBeLessThan(1_000);
    const [recovered] = await recoverSessions(harness.options);
    expect(recovered?.writers.map(({ name, released }) => [name, released])).toEqual([
      ['z', true],
      ['r', true],
    ]);
    expect(harness.journal.filter((line) => line.startsWith('thaw'))).toEqual(['thaw z']);
  });

  test('one that does not let go is ended by the agent started anew', async () => {
    harness.hook('r', `${resident()}${reader({ end: "log end; trap '' TERM; while :; do sleep 1; done" })}`);
    await harness.restartFreezer();
    await using agent = new MortalAgent(program, 'hold', harness.options);
    await expect.poll(() => agent.said, { timeout: 5_000 }).toBe('frozen\n');
    await agent.kill();
    expect(alive(pidOf('r'))).toBe(true);
    const started = performance.now();
    const [recovered] = await recoverSessions(harness.options);
    expect(performance.now() - started).toBeLessThan(5_000);
    expect(recovered?.writers).toMatchObject([{ name: 'r', released: true }]);
    expect(alive(pidOf('r'))).toBe(false);
    expect(existsSync(join(harness.dir, 'run/sessions/dead'))).toBe(false);
  });
});

describe('its hold may outlive its process', () => {
  const lingering = (cases: Parameters<typeof reader>[0] = {}): void => {
    harness.hook('r', `${resident({ lingers: 2 })}${reader(cases)}`);
  };

  test('it says that it has let go: nothing lingers', async () => {
    lingering();
    expect((await attempt()).report).toMatchObject({ outcome: 'ok', level: 'application' });
    expect(harness.coordinator.unreleased).toEqual([]);
  });

  test('it dies: its end proves nothing until then, and everything after', async () => {
    lingering();
    const coordinator = await harness.start({}, { writerLimitsMs: short });
    const session = await coordinator.freeze({ requester: 'test', leaseMs: 5_000, require: 'auto' });
    process.kill(pidOf('r'), 'SIGKILL');
    await expect.poll(() => session.report.level).toBe('filesystem');
    const diedMs = performance.now();
    expect(await session.thaw()).toMatchObject({
      outcome: 'unreleased',
      unreleased: [{ what: expect.any(String) as string }],
    });
    expect(coordinator.unreleased).toMatchObject([{ name: 'r', reason: expect.stringContaining('SIGKILL') as string }]);
    await expect.poll(() => coordinator.unreleased, { timeout: 8_000 }).toEqual([]);
    expect(performance.now() - diedMs).toBeGreaterThan(1_900);
    await coordinator.close();
  });

  test('its agent dies: the agent started anew waits for the time to pass', async () => {
    lingering();
    await harness.restartFreezer();
    await using agent = new MortalAgent(program, 'hold', harness.options);
    await expect.poll(() => agent.said, { timeout: 5_000 }).toBe('frozen\n');
    await agent.kill();
    const [recovered] = await recoverSessions(harness.options);
    expect(recovered?.writers).toMatchObject([
      { name: 'r', released: false, reason: 'its hold may outlive its process, for 2 s more' },
    ]);
    const coordinator = await harness.start();
    await coordinator.warmUp();
    expect(coordinator.unreleased).toMatchObject([{ name: 'r' }]);
    await expect.poll(() => coordinator.unreleased, { timeout: 8_000 }).toEqual([]);
    await expect.poll(() => existsSync(join(harness.dir, 'run/sessions/dead'))).toBe(false);
  });
});

describe('the examples of the manual', () => {
  const manual = readFileSync(join(import.meta.dirname, '../../fsfreeze-hook.d/README.md'), 'utf8');
  const [smallest = '', locking = ''] = [
    ...manual.matchAll(/```sh\n(#!\/bin\/sh\n# fsfreeze-writer: resident=true\n[^]*?)```/g),
  ].map(([, script = '']) => script);
  const lock = (): string => join(harness.dir, 'lock');
  function install(name: string, script: string): void {
    writeFileSync(join(harness.dir, 'first', name), script.replace('/srv/app/lock', lock()), { mode: 0o755 });
  }
  const isFree = (): boolean => spawnSync('flock', ['--nonblock', lock(), 'true']).status === 0;

  test('the smallest one', async () => {
    install('r', smallest);
    expect((await attempt()).report.level).toBe('application');
  });

  test('the one that holds a lock: held while frozen, free afterwards', async () => {
    writeFileSync(lock(), '');
    install('r', locking);
    const { report } = await attempt({}, {}, async () => {
      await Promise.resolve();
      expect(isFree()).toBe(false);
    });
    expect(report.level).toBe('application');
    expect(isFree()).toBe(true);
  });

  test('the one that holds a lock: free when the agent is killed', async () => {
    writeFileSync(lock(), '');
    install('r', locking);
    await harness.restartFreezer();
    await using agent = new MortalAgent(program, 'hold', harness.options);
    await expect.poll(() => agent.said, { timeout: 5_000 }).toBe('frozen\n');
    expect(isFree()).toBe(false);
    await agent.kill();
    await expect.poll(isFree, { timeout: 1_000, interval: 10 }).toBe(true);
  });

  test('the one that holds a lock: no application, no hold', async () => {
    install('r', locking);
    expect(writer((await attempt()).report, 'r').verdict).toBe('not-applicable');
  });
});
