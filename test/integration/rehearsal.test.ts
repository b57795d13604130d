// `fsfreeze-snapshot writers test`: one writer is held and let go as in a session, and nothing is frozen. The freezer is
// a fake one; the writers, their processes and the lock are real.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { build } from 'esbuild';
import { QuiesceError, StateError, UnreachableError } from '../../src/errors.js';
import type { CoordinatorOptions } from '../../src/freeze/options.js';
import { recoverSessions } from '../../src/freeze/session/recovery.js';
import { rehearse, type RehearsalRequest, type RehearsalStep } from '../../src/freeze/session/rehearsal.js';
import { described, FreezeHarness } from '../support/freeze-harness.js';

let harness: FreezeHarness;
beforeEach(async () => {
  harness = new FreezeHarness();
  await harness.restartFreezer();
});
afterEach(async () => {
  await harness[Symbol.asyncDispose]();
});

const all = 'prepare freeze verify thaw post abort';

async function rehearsal(
  name: string,
  request: Partial<RehearsalRequest> = {},
  // The lock is taken of whoever answers; the program is only looked at.
  options: CoordinatorOptions = { ...harness.options, freezerPath: '/bin/false' },
) {
  const steps: RehearsalStep[] = [];
  const onStep = (step: RehearsalStep): void => void steps.push(step);
  const { signal } = new AbortController();
  const done = await rehearse(options, { name, requester: 'test', holdMs: 0, signal, onStep, ...request });
  return { ...done, steps };
}

const left = (): readonly string[] => readdirSync(join(harness.dir, 'run/sessions'));

describe('a rehearsal', () => {
  test('runs every phase of one writer, and freezes nothing', async () => {
    harness.hook('a', `${described({ phases: all })}log; echo "about $FSFREEZE_MOUNTPOINTS"; echo more`);
    harness.hook('other', 'log');
    const { report, outcome, level, refuses, output, steps, pauseMs, locked } = await rehearsal('a');
    expect(harness.journal).toEqual(['prepare a', 'freeze a', 'verify a', 'verify a', 'thaw a', 'post a']);
    expect(report).toMatchObject({ name: 'a', verdict: 'verified' });
    expect({ outcome, level, refuses, locked }).toEqual({
      outcome: 'ok',
      level: 'application',
      refuses: [],
      locked: true,
    });
    expect(steps).toEqual(['prepare', 'freeze', 'verify', 'hold', 'verify again', 'thaw', 'post']);
    expect(pauseMs).toBeGreaterThan(0);
    expect(output).toContainEqual({ what: 'freeze.out', text: 'about /\n/data\nmore\n' });
    expect(left()).toEqual([]);
    expect(harness.freezer.state).toBe('idle');
  });

  test('says what a plain hook is worth', async () => {
    harness.hook('p', 'log "$@"', 'dragonsdawn');
    const { report, level, evidence } = await rehearsal('p');
    expect(harness.journal).toEqual(['freeze p freeze / /data', 'thaw p thaw / /data']);
    expect([report.verdict, level]).toEqual(['claimed', 'filesystem']);
    expect(evidence).toEqual(['writer p only claimed to hold, nothing verified it']);
  });

  test('of one that fails lets go all the same, and names the freezes that it would end', async () => {
    harness.hook('a', `${described({ phases: all })}log; [ "$1" != verify ]`);
    const { report, outcome, refuses } = await rehearsal('a');
    expect(harness.journal).toEqual(['prepare a', 'freeze a', 'verify a', 'thaw a', 'abort a']);
    expect([report.verdict, outcome, refuses]).toEqual([
      'failed',
      'failed',
      ['bridge-freeze', 'guest-fsfreeze-freeze'],
    ]);
    harness.hook('b', `${described({ required: false })}exit 1`);
    expect((await rehearsal('b')).refuses).toEqual([]);
  });

  test('of one with nothing to do here ends with prepare', async () => {
    harness.hook('a', `${described({ phases: all })}log; exit 3`);
    expect((await rehearsal('a')).report).toMatchObject({ verdict: 'not-applicable' });
    expect(harness.journal.slice(0, 1)).toEqual(['prepare a']);
    expect(harness.journal).not.toContain('freeze a');
  });

  test('of a resident asks one process', async () => {
    const lines = 'while read -r phase outcome; do log "$phase${outcome:+ $outcome}"; echo ok; done; log end';
    harness.hook('r', `${described({ phases: 'prepare freeze verify thaw', resident: true })}${lines}`);
    expect((await rehearsal('r')).report.verdict).toBe('verified');
    const words = ['prepare', 'freeze', 'verify', 'verify', 'thaw ok', 'end'];
    expect(harness.journal).toEqual(words.map((word) => `resident r ${word}`));
  });

  test('lets go when it is told to end', async () => {
    harness.hook('a', `${described({ phases: all })}log`);
    const stop = new AbortController();
    const onStep = (step: RehearsalStep): void => {
      if (step === 'hold')
        setTimeout(() => {
          stop.abort();
        }, 50);
    };
    const started = performance.now();
    const { outcome } = await rehearsal('a', { holdMs: 60_000, signal: stop.signal, onStep });
    expect(performance.now() - started).toBeLessThan(10_000);
    expect(outcome).toBe('failed');
    expect(harness.journal).toEqual(['prepare a', 'freeze a', 'verify a', 'thaw a', 'abort a']);
    expect(left()).toEqual([]);
  });

  test('ends a freeze that is under way when it is told to end', async () => {
    harness.hook('a', `${described({ phases: all })}log; [ "$1" = freeze ] && sleep 600; exit 0`);
    const stop = new AbortController();
    const onStep = (step: RehearsalStep): void => {
      if (step === 'freeze')
        setTimeout(() => {
          stop.abort();
        }, 200);
    };
    const { outcome, report } = await rehearsal('a', { signal: stop.signal, onStep });
    expect([outcome, report.reason]).toEqual(['failed', 'freeze: ended with the attempt']);
    expect(harness.journal).toEqual(['prepare a', 'freeze a', 'thaw a', 'abort a']);
  });

  test('says of one that does not let go, and leaves it to the agent that starts next', async () => {
    harness.hook('a', `${described({ phases: 'freeze thaw', guarantee: '' })}log; [ "$1" = freeze ]`);
    const { unreleased } = await rehearsal('a');
    expect(unreleased).toBe('a: thaw failed (exit 1)');
    expect(left()).toHaveLength(1);
  });
});

describe('a rehearsal and sessions', () => {
  test('is refused while a session holds the guest, and starts nothing', async () => {
    harness.hook('a', `${described({ phases: all })}log`);
    const coordinator = await harness.start();
    const session = await coordinator.freeze({ requester: 'the host', leaseMs: 5_000, require: 'auto' });
    const before = harness.journal;
    const error: unknown = await rehearsal('a').catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(StateError);
    expect((error as Error).message).toContain('held by the host');
    expect(harness.journal).toEqual(before);
    expect((await session.thaw()).level).toBe('application');
  });

  test('keeps sessions away while it holds', async () => {
    harness.hook('a', `${described({ phases: all })}log`);
    const coordinator = await harness.start();
    let refused: Promise<unknown> | undefined;
    const onStep = (step: RehearsalStep): void => {
      if (step !== 'hold') return;
      refused = coordinator
        .freeze({ requester: 'the host', leaseMs: 5_000, require: 'auto' })
        .catch((error: unknown) => error);
    };
    const { outcome } = await rehearsal('a', { holdMs: 500, onStep });
    expect(outcome).toBe('ok');
    expect(String(await refused)).toContain('held by test');
    expect(harness.journal).toEqual(['prepare a', 'freeze a', 'verify a', 'verify a', 'thaw a', 'post a']);
    const session = await coordinator.freeze({ requester: 'the host', leaseMs: 5_000, require: 'auto' });
    await session.thaw();
  });

  test('is refused while `post` of the session before still runs', async () => {
    const wait = join(harness.dir, 'go-on');
    harness.hook(
      'a',
      `${described({ phases: all })}log; [ "$1" != post ] || until [ -e '${wait}' ]; do sleep 0.05; done`,
    );
    const coordinator = await harness.start();
    const session = await coordinator.freeze({ requester: 'the host', leaseMs: 5_000, require: 'auto', session: 's1' });
    await session.thaw();
    await expect(rehearsal('a')).rejects.toThrow('found session s1 of the host, which is not over');
    expect(harness.freezer.state).toBe('idle');
    writeFileSync(wait, '');
    await expect.poll(left).toEqual([]);
    expect((await rehearsal('a')).outcome).toBe('ok');
  });

  test('is refused while `complete` of a session before runs', async () => {
    const wait = join(harness.dir, 'go-on');
    const phases = 'prepare freeze verify thaw complete';
    harness.hook(
      'a',
      `${described({ phases })}log; [ "$1" != complete ] || until [ -e '${wait}' ]; do sleep 0.05; done`,
    );
    const coordinator = await harness.start();
    const session = await coordinator.freeze({ requester: 'the host', leaseMs: 5_000, require: 'auto', session: 's1' });
    await session.thaw();
    const completed = coordinator.complete('s1', 'ok');
    await expect.poll(() => harness.journal.at(-1)).toBe('complete a');
    await expect(rehearsal('a')).rejects.toThrow('found complete of session s1, which is not over');
    writeFileSync(wait, '');
    expect((await completed).writers).toMatchObject([{ result: 'done' }]);
    expect((await rehearsal('a')).outcome).toBe('ok');
  });

  test('goes on without a freezer where none is installed, and says so', async () => {
    harness.hook('a', `${described({ phases: all })}log`);
    await harness.freezer.close();
    expect(await rehearsal('a', {}, harness.options)).toMatchObject({ outcome: 'ok', locked: false });
    // One that is installed, and does not start: sessions might be on their way.
    await expect(rehearsal('a')).rejects.toThrow(UnreachableError);
  });

  test('is released by the agent that starts next, should it be killed', async () => {
    harness.hook('a', `${described({ phases: all })}log`);
    const folder = mkdtempSync(join(tmpdir(), 'fsb-rehearsal-'));
    try {
      const program = join(folder, 'program.cjs');
      await build({
        stdin: {
          contents: `import { rehearse } from './src/freeze/session/rehearsal.ts';
            void rehearse(JSON.parse(process.argv[2]), { name: 'a', requester: 'test', holdMs: 60000,
              signal: new AbortController().signal, onStep: (step) => console.log(step) });`,
          resolveDir: new URL('../..', import.meta.url).pathname,
          loader: 'ts',
        },
        bundle: true,
        platform: 'node',
        format: 'cjs',
        outfile: program,
        logLevel: 'error',
      });
      const child = spawn(process.execPath, [program, JSON.stringify(harness.options)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const exit = once(child, 'exit');
      let said = '';
      child.stdout.on('data', (text: Buffer) => (said += text.toString()));
      await expect.poll(() => said, { timeout: 20_000 }).toContain('hold\n');
      child.kill('SIGKILL');
      await exit;
      // Until then nobody else takes it.
      await expect(rehearsal('a')).rejects.toThrow('when it is started anew');
      const [recovered] = await recoverSessions(harness.options);
      expect(recovered?.writers).toEqual([{ name: 'a', path: join(harness.dir, 'first/a'), released: true }]);
      expect(harness.journal.at(-1)).toBe('thaw a');
      expect((await rehearsal('a')).outcome).toBe('ok');
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

describe('no rehearsal is made', () => {
  test('of a writer that is not there, and those that are there are named', async () => {
    harness.hook('a', 'log');
    await expect(rehearsal('b')).rejects.toThrow('no writer b here, but a');
  });

  test('of one that no session would run', async () => {
    harness.hook('bad', `${described({ rank: 300 })}log`);
    const error: unknown = await rehearsal('bad').catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(QuiesceError);
    expect((error as Error).message).toMatch(/bad is not run: bad description: rank:/);
    expect(existsSync(join(harness.dir, 'run/sessions'))).toBe(false);
  });
});
