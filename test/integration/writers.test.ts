// Writers that misbehave: hang, ignore signals, leave daemons, flood, die, are not root's. No filesystem is frozen: the
// freezer is a fake one, the writers and their processes are real.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { spawn } from 'node:child_process';
import { build } from 'esbuild';
import { once } from 'node:events';
import { join } from 'node:path';
import type { FreezeReport, FreezeRequest, WriterReport } from '../../src/consistency.js';
import { QuiesceError } from '../../src/errors.js';
import type { CoordinatorOptions } from '../../src/freeze/options.js';
import { watchWriters } from '../../src/freeze/writers/watch.js';
import { described, FreezeHarness } from '../support/freeze-harness.js';
import { alive } from '../support/mortal-agent.js';
import { requires } from '../support/requires.js';

let harness: FreezeHarness;
beforeEach(() => {
  harness = new FreezeHarness();
});
afterEach(async () => {
  await harness[Symbol.asyncDispose]();
});

const short = { freeze: 400, thaw: 400, verify: 400, prepare: 400 };

function fixture(name: string, as = name): void {
  const path = join(harness.dir, 'first', as);
  copyFileSync(join(import.meta.dirname, '../fixtures/writers', name), path);
  chmodSync(path, 0o755);
}

async function attempt(
  request: Partial<FreezeRequest> = {},
  options: CoordinatorOptions = { writerLimitsMs: short },
): Promise<{ report: FreezeReport; tookMs: number; error?: QuiesceError }> {
  const coordinator = await harness.start({}, options);
  const started = performance.now();
  try {
    const session = await coordinator.freeze({ requester: 'test', leaseMs: 5_000, require: 'auto', ...request });
    return { report: await session.thaw(), tookMs: performance.now() - started };
  } catch (error) {
    if (!(error instanceof QuiesceError)) throw error;
    return { report: error.facts['report'] as FreezeReport, tookMs: performance.now() - started, error };
  }
}

function writer(report: FreezeReport, name: string): WriterReport {
  const found = report.writers.find((one) => one.name === name);
  if (found === undefined) throw new Error(`no writer ${name} in the report`);
  return found;
}

const logs = 'log';

describe('a writer that misbehaves in freeze is ended, released, and fails the attempt', () => {
  test('hangs', async () => {
    harness.hook('h', 'log; [ "$1" = freeze ] && sleep 600; exit 0');
    const { report, tookMs } = await attempt();
    expect(tookMs).toBeLessThan(1_500);
    expect(report).toMatchObject({ outcome: 'failed', state: 'thawed' });
    expect(writer(report, 'h')).toMatchObject({ verdict: 'failed', reason: 'freeze: not done within 400 ms' });
    expect(writer(report, 'h').phases[0]).toMatchObject({ phase: 'freeze', timedOut: true, signal: 'SIGTERM' });
    expect(harness.journal).toEqual(['freeze h', 'thaw h']);
  });

  test('ignores SIGTERM, and so does its child', async () => {
    fixture('ignores-sigterm');
    const { report, tookMs } = await attempt();
    expect(tookMs).toBeLessThan(2_000);
    expect(writer(report, 'ignores-sigterm').phases[0]).toMatchObject({ timedOut: true, signal: 'SIGKILL' });
    const child = Number(readFileSync(join(harness.dir, 'run/sessions/child'), 'utf8'));
    expect(child).toBeGreaterThan(1);
    await expect.poll(() => alive(child)).toBe(false);
  });

  test('floods both outputs: it is ended, what it wrote first is the reason, and no memory is lost', async () => {
    fixture('floods');
    const coordinator = await harness.start({}, { writerLimitsMs: { freeze: 10_000 } });
    const freezing = coordinator.freeze({ requester: 'test', leaseMs: 5_000, require: 'auto', session: 'flood' });
    const output = join(harness.dir, 'run/sessions/flood/output');
    let largest = 0;
    const watching = setInterval(() => {
      if (!existsSync(output)) return;
      for (const name of readdirSync(output)) largest = Math.max(largest, statSync(join(output, name)).blocks * 512);
    }, 5);
    const started = performance.now();
    const error: unknown = await freezing.catch((reason: unknown) => reason);
    clearInterval(watching);
    expect(performance.now() - started).toBeLessThan(5_000);
    expect((error as Error).message).toContain('floods: freeze: printed more than 16 MiB: the first line');
    expect(largest).toBeGreaterThan(0);
    // It writes gigabytes in a second; what lies there is what it wrote since the last look, and until it was killed.
    expect(largest).toBeLessThan(1024 ** 3);
  });

  test('floods and then leaves as one with nothing to do: it has failed', async () => {
    harness.hook('f', `${described({ phases: 'prepare freeze verify thaw' })}trap 'exit 3' TERM; yes & wait`);
    harness.hook('z', `${described({})}:`);
    const { report } = await attempt({ require: 'filesystem' });
    expect(report.level).toBe('filesystem');
    expect(writer(report, 'f')).toMatchObject({
      verdict: 'failed',
      reason: expect.stringContaining('prepare: printed more than 16 MiB') as string,
    });
  });

  test('dies by a signal', async () => {
    fixture('dies');
    const { report } = await attempt();
    expect(writer(report, 'dies')).toMatchObject({
      verdict: 'failed',
      reason: 'freeze: ended by SIGSEGV: going down',
    });
  });

  test('cannot be executed', async () => {
    harness.hook('broken', '');
    writeFileSync(join(harness.dir, 'first/broken'), '#!/no/such/interpreter\n');
    const { report } = await attempt();
    expect(writer(report, 'broken').reason).toMatch(/^freeze: cannot be started: .*ENOENT/);
  });
});

test('a daemon that keeps the output open is neither waited for nor killed', async () => {
  fixture('daemon');
  const coordinator = await harness.start({}, { trustPlainHooks: true });
  const started = performance.now();
  const session = await coordinator.freeze({ requester: 'test', leaseMs: 5_000, require: 'auto', session: 's' });
  expect(performance.now() - started).toBeLessThan(1_500);
  const holder = Number(readFileSync(join(harness.dir, 'run/sessions/s/scratch/daemon/holder'), 'utf8'));
  expect(alive(holder)).toBe(true);
  expect((await session.thaw()).level).toBe('application');
  await expect.poll(() => alive(holder)).toBe(false);
});

test('a daemon that floods the output it kept is ended, and its writer has lost its hold', async () => {
  const go = join(harness.dir, 'go');
  harness.hook(
    'd',
    `${described({})}[ "$1" = freeze ] && { (while [ ! -e '${go}' ]; do sleep 0.02; done; exec yes too much) & }; exit 0`,
  );
  const coordinator = await harness.start({}, { writerLimitsMs: short });
  const session = await coordinator.freeze({ requester: 'test', leaseMs: 5_000, require: 'auto' });
  expect(session.report.level).toBe('application');
  writeFileSync(go, '');
  await expect.poll(() => session.report.level, { timeout: 5_000 }).toBe('filesystem');
  const report = await session.thaw();
  expect(writer(report, 'd').reason).toBe('lost its hold: what its d.freeze left running printed more than 16 MiB');
});

describe('a writer that misbehaves in thaw is ended at its limit, and the next one has its turn', () => {
  test.each([
    ['hangs', 'sleep 600', 'thaw: not done within 400 ms'],
    ['ignores SIGTERM', "trap '' TERM; while :; do sleep 1; done", 'thaw: not done within 400 ms'],
    ['leaves a daemon that keeps its output', 'sleep 600 & echo $! >"$0.pid.sample"', undefined],
    ['floods', 'exec yes', 'thaw: printed more than 16 MiB: y'],
    ['dies', 'kill -KILL $$', 'thaw: ended by SIGKILL'],
  ])('%s', async (_name, what, reason) => {
    const path = harness.hook('b', `${described({ rank: 20 })}[ "$1" = thaw ] || exit 0; ${what}`);
    harness.hook('a', `${described({ rank: 10 })}log`);
    const { report } = await attempt();
    expect(writer(report, 'b').reason).toBe(reason);
    const [mine] = writer(report, 'b').phases.filter(({ phase }) => phase === 'thaw');
    const [next] = writer(report, 'a').phases.filter(({ phase }) => phase === 'thaw');
    expect((mine?.endMs ?? Infinity) - (mine?.startMs ?? 0)).toBeLessThan(400 + 250 + 1_000);
    expect((next?.startMs ?? Infinity) - (mine?.endMs ?? 0)).toBeLessThan(1_000);
    expect(harness.journal.at(-1)).toBe('thaw a');
    if (existsSync(`${path}.pid.sample`)) process.kill(Number(readFileSync(`${path}.pid.sample`, 'utf8')), 'SIGKILL');
  });
});

test('what a writer prints cannot steer a terminal, and has an end', async () => {
  const long = 'x'.repeat(2_000);
  harness.hook('h', `[ "$1" = freeze ] && { printf '\\033]0;title\\007\\302\\233 ${long}\\n' >&2; exit 1; }; exit 0`);
  const { report, error } = await attempt();
  const reason = writer(report, 'h').reason ?? '';
  expect(reason).toMatch(/^freeze: exit 1: \\u\{1b\}\]0;title\\u\{7\}\\u\{9b\} x+$/);
  expect(reason.length).toBeLessThan(600);

  expect(JSON.stringify(report) + (error?.message ?? '')).not.toMatch(/[\u0000-\u001f\u007f-\u009f]/);
});

test('a second run of a phase is not told by what the first one printed', async () => {
  harness.hook(
    'w',
    `${described({})}[ "$1" = verify ] || exit 0; n="$FSFREEZE_SCRATCH/n"; [ -e "$n" ] && exit 1; : >"$n"; echo all is well`,
  );
  expect(writer((await attempt()).report, 'w').reason).toBe('verify: exit 1');
});

describe('replaced after the session was planned', () => {
  /** `a` prepares for as long as it takes to do it. */
  async function meanwhile(act: (path: string) => void): Promise<{ error: Error; path: string }> {
    const path = harness.hook('h', 'log; exit 0');
    const going = join(harness.dir, 'going');
    const go = join(harness.dir, 'go');
    harness.hook(
      'a',
      `${described({ phases: 'prepare freeze verify thaw' })}[ "$1" = prepare ] || exit 0; : >'${going}'; while [ ! -e '${go}' ]; do sleep 0.02; done`,
    );
    const coordinator = await harness.start();
    const freezing = coordinator
      .freeze({ requester: 'test', leaseMs: 5_000, require: 'auto' })
      .catch((error: unknown) => error);
    await expect.poll(() => existsSync(going), { timeout: 5_000 }).toBe(true);
    act(path);
    writeFileSync(go, '');
    const error = await freezing;
    if (!(error instanceof Error)) throw new Error('it was run');
    return { error, path };
  }

  test('by another file: it is not run, and the attempt ends', async () => {
    const { error } = await meanwhile((path) => {
      rmSync(path);
      writeFileSync(path, `#!/bin/sh\necho "$1 evil" >>'${harness.journalPath}'\n`, { mode: 0o755 });
    });
    expect(error.message).toContain('h: freeze: not started: it was replaced or changed after the session was planned');
    // To let go it is run: what was started must be released, and the new one is as safe as the old one was.
    expect(harness.journal).toEqual(['thaw evil']);
  });

  test('by one that others may write: it is not run at all', async () => {
    const { error, path } = await meanwhile((hook) => {
      chmodSync(hook, 0o777);
    });
    expect(error.message).toContain(`h: freeze: not started: ${path} is writable by others (mode 777)`);
    expect(harness.journal).toEqual([]);
  });
});

describe('who may not be run', () => {
  const unsafe = async (): Promise<string> => {
    const { error } = await attempt();
    expect(harness.journal).toEqual([]);
    return error?.message ?? 'it was run';
  };

  requires('root')('as root', () => {
    test('not owned by root', async () => {
      chownSync(harness.hook('h', logs), 65_534, 65_534);
      expect(await unsafe()).toContain('belongs to user 65534, not to root');
    });

    test('in a folder of somebody else', async () => {
      harness.hook('h', logs);
      chownSync(join(harness.dir, 'first'), 65_534, 65_534);
      expect(await unsafe()).toContain('belongs to user 65534');
    });

    test('a link that leads through a folder of somebody else, who could turn it elsewhere', async () => {
      const path = harness.hook('h', logs);
      mkdirSync(join(harness.dir, 'safe'));
      mkdirSync(join(harness.dir, 'theirs'));
      renameSync(path, join(harness.dir, 'safe/h'));
      symlinkSync(join(harness.dir, 'safe/h'), join(harness.dir, 'theirs/h'));
      symlinkSync(join(harness.dir, 'theirs/h'), path);
      chownSync(join(harness.dir, 'theirs'), 65_534, 65_534);
      expect(await unsafe()).toContain(`${join(harness.dir, 'theirs')} belongs to user 65534`);
    });

    test('a link to a file of somebody else', async () => {
      const path = harness.hook('target', logs, 'qemu');
      mkdirSync(join(harness.dir, 'elsewhere'));
      copyFileSync(path, join(harness.dir, 'elsewhere/target'));
      chownSync(join(harness.dir, 'elsewhere/target'), 65_534, 65_534);
      writeFileSync(path, '');
      chmodSync(path, 0o644);
      symlinkSync(join(harness.dir, 'elsewhere/target'), join(harness.dir, 'first/target'));
      expect(await unsafe()).toContain('belongs to user 65534');
    });
  });

  test.each([0o775, 0o757])('writable by others (%o)', async (mode) => {
    chmodSync(harness.hook('h', logs), mode);
    expect(await unsafe()).toContain('is writable by others');
  });

  test('in a folder writable by others', async () => {
    harness.hook('h', logs);
    chmodSync(join(harness.dir, 'first'), 0o1777);
    expect(await unsafe()).toContain('is writable by others (mode 1777)');
  });

  test('a bad description', async () => {
    harness.hook('h', '# fsfreeze-writer: phase=freeze\nlog');
    expect(await unsafe()).toContain('bad description');
  });

  test('a lower requirement goes on without it, at filesystem', async () => {
    chmodSync(harness.hook('h', logs), 0o777);
    const { report } = await attempt({ require: 'filesystem' });
    expect(report).toMatchObject({ outcome: 'incomplete', level: 'filesystem' });
    expect(report.skipped.map(({ reason }) => reason).join()).toContain('is writable by others');
  });
});

describe('who is switched off', () => {
  test('a link to /dev/null hides the same name in later folders, and lowers nothing', async () => {
    harness.hook('ours', `${described({})}${logs}`);
    harness.hook('h', logs, 'qemu');
    symlinkSync('/dev/null', join(harness.dir, 'first/h'));
    const { report } = await attempt();
    expect(report.level).toBe('application');
    expect(harness.journal.some((line) => line.endsWith(' h'))).toBe(false);
    const listed = await harness.coordinator.writers();
    expect(listed.map(({ name, problem }) => [name, problem])).toEqual([
      ['h', 'switched off (link to /dev/null)'],
      ['h', `hidden by ${join(harness.dir, 'first/h')}`],
      ['ours', undefined],
    ]);
  });

  test('the same name in two folders runs once, from the earlier one', async () => {
    harness.hook('h', 'log from first');
    harness.hook('h', 'log from qemu', 'qemu');
    await attempt({ require: 'filesystem' });
    expect(harness.journal.filter((line) => line.startsWith('freeze'))).toEqual(['freeze h from first']);
  });

  test.each(['h.sample', 'h~', 'h.rpmsave', 'h.dpkg-old', '.h', 'README'])('%s is ignored', async (name) => {
    harness.hook(name, logs);
    const { report } = await attempt();
    expect(report.level).toBe('filesystem');
    expect(harness.journal.filter((line) => !line.includes('FI'))).toEqual([]);
    expect(await harness.coordinator.writers()).toEqual([]);
  });
});

describe('exit codes of described writers', () => {
  const exits = (name: string, phase: string, code: number, more = {}): string =>
    harness.hook(
      name,
      `${described({ phases: 'prepare freeze verify thaw', ...more })}log; [ "$1" = ${phase} ] && exit ${code}; exit 0`,
    );

  test('3 in prepare: it counts no more, and the guest has no writer', async () => {
    exits('w', 'prepare', 3);
    const { report } = await attempt();
    expect(report).toMatchObject({ outcome: 'ok', level: 'filesystem' });
    expect(writer(report, 'w').verdict).toBe('not-applicable');
    expect(harness.journal[1]).toContain('FIFREEZE');
  });

  test('it names processes: where none of them runs it is not started, and counts no more', async () => {
    const names = (processes: string) =>
      harness.hook(
        `w-${processes.replaceAll(' ', '-')}`,
        `${described({ phases: 'prepare freeze thaw', guarantee: '', processes })}log; exit 0`,
      );
    names('fsb-nobody fsb-nor-he');
    names('fsb-nobody sleep');
    const running = spawn('sleep', ['60']);
    const { report } = await attempt();
    running.kill();
    expect(report.writers.map(({ verdict }) => verdict)).toEqual(['not-applicable', 'claimed']);
    expect(report.writers[0]).toMatchObject({ reason: 'no process fsb-nobody or fsb-nor-he runs', phases: [] });
    expect(harness.journal.join()).not.toContain('fsb-nor-he');
  });

  test('3 in verify is a failure: it held and does not know of what', async () => {
    exits('w', 'verify', 3);
    const { report } = await attempt();
    expect(writer(report, 'w')).toMatchObject({ verdict: 'failed', reason: 'verify: exit 3' });
    expect(harness.journal.at(-1)).toBe('thaw w');
  });

  test('2: nothing is made of it, and nothing is proved by it', async () => {
    exits('p', 'prepare', 2);
    expect((await attempt()).report.level).toBe('application');
    exits('v', 'verify', 2);
    const { report } = await attempt({ require: 'filesystem' });
    expect(report.level).toBe('filesystem');
    expect(writer(report, 'v').verdict).toBe('claimed');
  });

  test.each([1, 4, 15, 16, 255])('%d is a failure', async (code) => {
    exits('w', 'freeze', code);
    const { report } = await attempt();
    const reserved = code >= 4 && code <= 15 ? ' (reserved)' : '';
    expect(writer(report, 'w').reason).toBe(`freeze: exit ${code}${reserved}`);
    expect(harness.journal).toEqual(['prepare w', 'freeze w', 'thaw w']);
  });

  test('an optional one that fails does not end the attempt if less is asked for, and the level falls', async () => {
    exits('o', 'freeze', 1, { required: false });
    exits('r', 'none', 0);
    const { report } = await attempt({ require: 'filesystem' });
    expect(report).toMatchObject({ outcome: 'incomplete', level: 'filesystem' });
    expect(report.evidence.at(-1)).toBe('optional writer o failed: freeze: exit 1');
    expect(writer(report, 'r').verdict).toBe('verified');
  });

  test('a second verification that fails takes the level back after the cut', async () => {
    harness.hook(
      'w',
      `${described({})}n="$FSFREEZE_SCRATCH/n"; [ "$1" = verify ] || exit 0; [ -e "$n" ] && { echo lost it >&2; exit 1; }; : >"$n"`,
    );
    const coordinator = await harness.start();
    const session = await coordinator.freeze({ requester: 'test', leaseMs: 5_000, require: 'auto' });
    expect(session.report.level).toBe('application');
    const report = await session.thaw();
    expect(report).toMatchObject({ outcome: 'incomplete', level: 'filesystem' });
    expect(writer(report, 'w').reason).toBe('verify: exit 1: lost it');
  });
});

describe('order', () => {
  test('freeze fails half way: those that were started are released in reverse, the others were never run', async () => {
    for (const [name, rank] of [
      ['a', 10],
      ['b', 20],
      ['c', 30],
    ] as const)
      harness.hook(
        name,
        `${described({ rank })}log; [ "$1$0" = "freeze${join(harness.dir, 'first/b')}" ] && exit 1; exit 0`,
      );
    await attempt();
    expect(harness.journal).toEqual(['freeze a', 'freeze b', 'thaw b', 'thaw a']);
  });

  test('a thaw that hangs or fails does not keep the others held', async () => {
    harness.hook('a', `${described({ rank: 10 })}log`);
    harness.hook('b', `${described({ rank: 20 })}log; [ "$1" = thaw ] && sleep 600; exit 0`);
    harness.hook('c', `${described({ rank: 30 })}log; [ "$1" = thaw ] && exit 1; exit 0`);
    const { report } = await attempt();
    // Once more, when all others are released; one that hung would keep the answer to the thaw waiting.
    expect(harness.journal.slice(-4)).toEqual(['thaw c', 'thaw b', 'thaw a', 'thaw c']);
    expect(report).toMatchObject({ outcome: 'unreleased', level: 'filesystem' });
    expect(writer(report, 'b').reason).toBe('thaw: not done within 400 ms');
  });

  test('equal rank side by side, plain hooks one by one in the order of their names', async () => {
    const slow = (name: string): string =>
      `log; [ "$1" = freeze ] && sleep 0.3 && echo "froze ${name}" >>'${harness.journalPath}'; exit 0`;
    for (const name of ['p1', 'p2']) harness.hook(name, slow(name));
    for (const name of ['d1', 'd2']) harness.hook(name, `${described({})}${slow(name)}`);
    await attempt({ require: 'filesystem' }, {});
    const freezes = harness.journal.filter((line) => /^fr(eeze|oze)/.test(line));
    expect(freezes.slice(0, 3).sort()).toEqual(['freeze d1', 'freeze d2', 'freeze p1']);
    expect(freezes.slice(3, 7).filter((line) => !line.includes(' d'))).toEqual(['froze p1', 'freeze p2']);
    expect(freezes.at(-1)).toBe('froze p2');
  });

  test('dragonsdawn hooks get the mount points, others the phase alone', async () => {
    harness.hook('d', 'log "$*"', 'dragonsdawn');
    harness.hook('q', 'log "$*"', 'qemu');
    await attempt({ require: 'filesystem' });
    expect(harness.journal.slice(0, 2)).toEqual(['freeze d freeze / /data', 'freeze q freeze']);
  });
});

test('the environment is the one the manual lists, and nothing else', async () => {
  harness.hook('w', `${described({})}env | sort >"$(dirname "$0")/env.$1.sample"; exit 0`);
  const { report } = await attempt({ session: 'the-id', leaseMs: 4_321 });
  const env = (phase: string): string[] =>
    readFileSync(join(harness.dir, `first/env.${phase}.sample`), 'utf8')
      .split('\n')
      .filter((line) => line !== '' && !/^(PWD|OLDPWD|SHLVL|_)=/.test(line));
  expect(report.level).toBe('application');
  expect(env('freeze')).toEqual(
    [
      '/data',
      'FSFREEZE_LEASE_MAX_MS=600000',
      'FSFREEZE_LEASE_MS=4321',
      'FSFREEZE_LIMIT_MS=400',
      'FSFREEZE_MOUNTPOINTS=/',
      `FSFREEZE_MOUNTPOINTS_FILE=${join(harness.dir, 'run/sessions/the-id/scratch/.mountpoints')}`,
      'FSFREEZE_OUTCOME=',
      'FSFREEZE_PHASE=freeze',
      `FSFREEZE_SCRATCH=${join(harness.dir, 'run/sessions/the-id/scratch/w')}`,
      'FSFREEZE_SESSION=the-id',
      'HOME=/root',
      'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    ].sort((a, b) => Number(a > b) - Number(a < b)),
  );
  expect(env('thaw')).toContain('FSFREEZE_OUTCOME=ok');
});

test('a slow prepare within its budget is waited for, side by side with the others', async () => {
  for (const name of ['a', 'b'])
    harness.hook(name, `${described({ phases: 'prepare freeze verify thaw' })}[ "$1" = prepare ] && sleep 0.8; exit 0`);
  const { report, tookMs } = await attempt({}, {});
  expect(report.level).toBe('application');
  expect(tookMs).toBeLessThan(1_600);
  const over = await attempt({}, { prepareBudgetMs: 300 });
  expect(over.error?.message).toContain('a required writer failed: a: prepare: not done within');
});

test('the hold budget bounds all writers together', async () => {
  for (const name of ['a', 'b', 'c']) harness.hook(name, 'log; [ "$1" = freeze ] && sleep 0.4; exit 0');
  const { error, tookMs } = await attempt({}, { holdBudgetMs: 600 });
  expect(error?.message).toMatch(/required writer failed: b: freeze: not done within \d+ ms/);
  expect(tookMs).toBeLessThan(2_000);
  expect(harness.journal).toEqual(['freeze a', 'freeze b', 'thaw b', 'thaw a']);
});

test.each(['prepare', 'freeze', 'verify'])(
  'the requester aborts in %s: ended, released, before it settles',
  async (phase) => {
    const w = harness.hook(
      'w',
      `${described({ phases: 'prepare freeze verify thaw abort' })}log; [ "$1" = ${phase} ] && { echo $$ >"$0.pid.sample"; sleep 600; }; exit 0`,
    );
    const coordinator = await harness.start();
    const abort = new AbortController();
    const freezing = coordinator.freeze({ requester: 'test', leaseMs: 5_000, require: 'auto' }, abort.signal);
    const outcome = freezing.catch((error: unknown) => error);
    await expect.poll(() => existsSync(`${w}.pid.sample`)).toBe(true);
    abort.abort();
    expect(((await outcome) as Error).message).toBe('the attempt was aborted');
    expect(alive(Number(readFileSync(`${w}.pid.sample`, 'utf8')))).toBe(false);
    const thawed = phase === 'prepare' ? [] : ['thaw w'];
    expect(harness.journal.filter((line) => line.startsWith('thaw'))).toEqual(thawed);
    await coordinator.close();
    expect(harness.journal.at(-1)).toBe('abort w');
    expect(harness.journal.join()).not.toContain('FIFREEZE');
  },
);

test('a bad hook is told of when it is dropped in', async () => {
  const told: string[] = [];
  const watching = watchWriters({
    folders: harness.folders,
    onChange: ({ name, problem }) => {
      told.push(`${name}: ${problem ?? 'fine'}`);
    },
    onError: (error) => {
      told.push(String(error));
    },
  });
  try {
    await new Promise((resolve) => setTimeout(resolve, 300));
    const path = harness.hook('late', logs);
    chmodSync(path, 0o777);
    await expect
      .poll(() => told, { timeout: 5_000 })
      .toEqual([`late: ${path} is writable by others (mode 777): chmod go-w ${path}`]);
    chmodSync(path, 0o755);
    await expect.poll(() => told.at(-1), { timeout: 5_000 }).toBe('late: fine');
  } finally {
    await watching.close();
  }
});

test('the watch keeps no process alive, and sees a folder that comes later', async () => {
  const outfile = join(harness.dir, 'watch.cjs');
  const contents = `
    import { watchWriters } from './src/freeze/writers/watch.js';
    const folders = [{ path: process.argv[2], style: 'bridge' }];
    watchWriters({ folders, onChange: ({ name }) => { console.log(name); }, onError: (error) => { throw error; } });
    setTimeout(() => undefined, Number(process.argv[3]));`;
  const resolveDir = join(import.meta.dirname, '../..');
  const bundle = { bundle: true, platform: 'node', format: 'cjs', outfile, logLevel: 'error' } as const;
  await build({ stdin: { contents, resolveDir, loader: 'ts' }, ...bundle });
  const folder = join(harness.dir, 'later');
  const run = async (ms: number, during: () => Promise<void>): Promise<{ out: string; tookMs: number }> => {
    const started = performance.now();
    const child = spawn(process.execPath, [outfile, folder, String(ms)], { stdio: ['ignore', 'pipe', 'inherit'] });
    let out = '';
    child.stdout.on('data', (data: Buffer) => (out += data.toString()));
    await during();
    if (child.exitCode === null) await once(child, 'exit');
    return { out, tookMs: performance.now() - started };
  };
  const pause = async (ms: number): Promise<void> => {
    await new Promise((resolve) => setTimeout(resolve, ms));
  };
  expect((await run(1, () => Promise.resolve())).tookMs).toBeLessThan(3_000);
  const { out } = await run(4_000, async () => {
    await pause(1_000);
    mkdirSync(folder, { mode: 0o755 });
    await pause(500);
    writeFileSync(join(folder, 'new'), '', { mode: 0o755 });
  });
  expect(out).toBe('new\n');
});
