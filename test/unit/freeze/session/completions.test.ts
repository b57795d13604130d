// bridge-complete within the guest, over a fake machine and a fake freezer: who is told what, when, and how often; what
// is known of a session after the agent was started anew, and for how long.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { FreezeRequest } from '../../../../src/consistency.js';
import { QuiesceError, StateError } from '../../../../src/errors.js';
import type { LocalCoordinator } from '../../../../src/freeze/options.js';
import { processStat } from '../../../../src/linux/process-stat.js';
import { recoverSessions } from '../../../../src/freeze/session/recovery.js';
import { described, FreezeHarness } from '../../../support/freeze-harness.js';

let harness: FreezeHarness;
beforeEach(() => {
  harness = new FreezeHarness();
});
afterEach(async () => {
  await harness[Symbol.asyncDispose]();
});

const request = (session: string, more: Partial<FreezeRequest> = {}): FreezeRequest => ({
  session,
  requester: 'test',
  leaseMs: 5_000,
  require: 'filesystem',
  ...more,
});
const phases = 'prepare freeze verify thaw post complete';
const completes = (): string[] => harness.journal.filter((line) => line.startsWith('complete '));
/** A writer that notes what it is told, and what it had written into its scratch in `freeze`. */
const telling = (more: Readonly<Record<string, string | number>> = {}, extra = ''): string =>
  `${described({ phases, ...more })}case $1 in
    freeze) echo position >"$FSFREEZE_SCRATCH/log" ;;
    post) log ;;
    complete) log "$FSFREEZE_OUTCOME $(cat "$FSFREEZE_SCRATCH/log") $FSFREEZE_SESSION" ; ${extra} ;;
    esac`;

async function held(coordinator: LocalCoordinator, session: string, more: Partial<FreezeRequest> = {}): Promise<void> {
  await (await coordinator.freeze(request(session, more))).thaw();
}

/** A file by which a writer goes on, which it waits for. */
const gate = () => {
  const path = join(harness.dir, 'go');
  return {
    is: `[ -e '${path}' ]`,
    wait: `until [ -e '${path}' ]; do sleep 0.02; done`,
    open: () => {
      writeFileSync(path, '');
    },
  };
};

describe('a session that is over', () => {
  test('is completed once: its writers are told after post, with their scratch, and the answer stays the same', async () => {
    harness.hook('w', telling());
    harness.hook('plain', 'case $1 in *) log ;; esac');
    const coordinator = await harness.start();
    await held(coordinator, 's1');
    const first = await coordinator.complete('s1', 'ok');
    expect(first).toMatchObject({
      session: 's1',
      outcome: 'ok',
      writers: [{ name: 'w', told: 'ok', result: 'done' }],
    });
    expect(await coordinator.complete('s1', 'failed')).toEqual(first);
    expect(harness.journal.slice(-2)).toEqual(['post w', 'complete w ok position s1']);
    expect(completes()).toHaveLength(1);
    expect(readdirSync(join(harness.dir, 'run/sessions'))).toEqual([]);
    expect(existsSync(join(harness.dir, 'run/kept/s1/scratch'))).toBe(false);
  });

  test('waits for post, and two who ask at once are told the same', async () => {
    const { wait, open } = gate();
    harness.hook('w', `${described({ phases })}[ "$1" != post ] || { ${wait}; }; log`);
    const coordinator = await harness.start();
    await held(coordinator, 's1');
    const asked = [coordinator.complete('s1', 'ok'), coordinator.complete('s1', 'failed')];
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(harness.journal.at(-1)).toBe('thaw w');
    expect(coordinator.kept).toEqual([]);
    open();
    const [one, other] = await Promise.all(asked);
    expect(one).toEqual(other);
    expect(harness.journal.slice(-2)).toEqual(['post w', 'complete w']);
    expect(coordinator.kept).toMatchObject([{ session: 's1', requester: 'test', state: 'completed', outcome: 'ok' }]);
  });

  test('tells what went wrong in complete, and does not run it again', async () => {
    harness.hook('w', telling({}, 'echo no space >&2; exit 1'));
    const coordinator = await harness.start();
    await held(coordinator, 's1');
    const { writers } = await coordinator.complete('s1', 'ok');
    expect(writers).toMatchObject([{ told: 'ok', result: 'failed', reason: 'exit 1: no space' }]);
    expect((await coordinator.complete('s1', 'ok')).writers).toEqual(writers);
    expect(completes()).toHaveLength(1);
  });

  test('ends a complete that is over its limit', async () => {
    harness.hook('w', telling({ 'timeout.complete': 0.2 }, 'sleep 60'));
    const coordinator = await harness.start();
    await held(coordinator, 's1');
    const { writers } = await coordinator.complete('s1', 'ok');
    expect(writers).toMatchObject([{ result: 'failed', reason: 'not done within 200 ms' }]);
  });
});

describe('nobody is told ok', () => {
  test('whose requester says failed', async () => {
    harness.hook('w', telling());
    const coordinator = await harness.start();
    await held(coordinator, 's1');
    expect(await coordinator.complete('s1', 'failed')).toMatchObject({
      outcome: 'failed',
      writers: [{ told: 'failed' }],
    });
    expect(completes()).toEqual(['complete w failed position s1']);
  });

  test('who failed, though the requester makes do without it', async () => {
    harness.hook('good', telling());
    harness.hook('bad', telling().replace('freeze)', 'verify) exit 1 ;; freeze)'));
    const coordinator = await harness.start();
    await held(coordinator, 's1');
    const { writers } = await coordinator.complete('s1', 'ok');
    expect(writers).toMatchObject([
      { name: 'bad', told: 'failed' },
      { name: 'good', told: 'ok' },
    ]);
    expect(completes().sort()).toEqual(['complete bad failed position s1', 'complete good ok position s1']);
  });

  test('if the lease had ended before the thaw', async () => {
    harness.hook('w', telling());
    const coordinator = await harness.start();
    const session = await coordinator.freeze(request('s1', { leaseMs: 150 }));
    await session.ended;
    expect((await session.thaw()).outcome).toBe('expired');
    expect((await coordinator.complete('s1', 'ok')).writers).toMatchObject([{ told: 'failed' }]);
  });

  test('who still holds: it is told nothing, and keeps its scratch, by which it lets go later', async () => {
    const { is, open } = gate();
    const thaw = `thaw) ${is} || exit 1; log "$(cat "$FSFREEZE_SCRATCH/log")" ;; freeze)`;
    harness.hook('w', telling().replace('freeze)', thaw));
    harness.hook('other', telling());
    const coordinator = await harness.start();
    await held(coordinator, 's1');
    expect((await coordinator.complete('s1', 'ok')).writers).toMatchObject([{ name: 'other', told: 'ok' }]);
    open();
    await expect.poll(() => coordinator.unreleased, { timeout: 10_000 }).toEqual([]);
    expect(harness.journal).toContain('thaw w position');
    expect(completes()).toEqual(['complete other ok position s1']);
  });

  test('and no writer is asked that had nothing to do with it', async () => {
    harness.hook('w', telling().replace('freeze)', 'prepare) exit 3 ;; freeze)'));
    const coordinator = await harness.start();
    await held(coordinator, 's1');
    expect((await coordinator.complete('s1', 'ok')).writers).toEqual([]);
    expect(completes()).toEqual([]);
  });
});

describe('a session that is unknown', () => {
  const unknown = /^no session 's\d+' to complete: expected one that was held/;

  test('is refused, as is one that was never held', async () => {
    harness.hook('w', `${described({ phases })}[ "$1" != freeze ]`);
    const coordinator = await harness.start();
    await expect(coordinator.complete('s1', 'ok')).rejects.toThrow(unknown);
    await expect(coordinator.complete('s1', 'ok')).rejects.toBeInstanceOf(QuiesceError);
    await expect(coordinator.freeze(request('s2', { require: 'application' }))).rejects.toThrow('w');
    await expect(coordinator.complete('s2', 'ok')).rejects.toThrow(unknown);
    await expect(coordinator.complete('../s2', 'ok')).rejects.toThrow('session id: expected');
  });

  test('is one that 16 others came after', async () => {
    const coordinator = await harness.start();
    for (let number = 0; number <= 16; number++) await held(coordinator, `s${number}`);
    expect(await coordinator.complete('s1', 'ok')).toEqual({ session: 's1', outcome: 'ok', writers: [] });
    await expect(coordinator.complete('s0', 'ok')).rejects.toThrow(unknown);
    expect(coordinator.kept).toHaveLength(16);
    expect(readdirSync(join(harness.dir, 'run/kept')).sort()).toHaveLength(16);
  });

  test('is one that ended a day ago', async () => {
    const coordinator = await harness.start();
    await held(coordinator, 's1');
    await held(coordinator, 's2');
    await coordinator.close();
    const path = join(harness.dir, 'run/kept/s1/kept.json');
    const aged = JSON.parse(readFileSync(path, 'utf8')) as { endedMs: number };
    writeFileSync(path, JSON.stringify({ ...aged, endedMs: aged.endedMs - 24 * 3_600_000 }));
    const next = await harness.start();
    await expect(next.complete('s1', 'ok')).rejects.toThrow(unknown);
    expect(await next.complete('s2', 'ok')).toMatchObject({ outcome: 'ok' });
  });
});

describe('an agent that is started anew', () => {
  test('completes a session of the one before, and takes it for no abandoned one', async () => {
    harness.hook('w', telling());
    const before = await harness.start();
    await held(before, 's1');
    await before.close();
    expect(await recoverSessions(harness.options)).toEqual([]);
    const next = await harness.start();
    await next.warmUp();
    expect(next.kept).toMatchObject([{ session: 's1', state: 'waiting' }]);
    const answer = await next.complete('s1', 'ok');
    expect(answer.writers).toMatchObject([{ told: 'ok', result: 'done' }]);
    await next.close();
    expect(await (await harness.start()).complete('s1', 'failed')).toEqual(answer);
    expect(completes()).toEqual(['complete w ok position s1']);
  });

  test('runs complete again that the one before was told to end in, after what that left is gone', async () => {
    const { wait, open } = gate();
    harness.hook('w', telling({}, wait));
    const before = await harness.start();
    await held(before, 's1');
    const asked = before.complete('s1', 'ok');
    await expect.poll(() => completes()).toHaveLength(1);
    await Promise.all([before.close(), expect(asked).rejects.toBeInstanceOf(StateError)]);
    open();
    const next = await harness.start();
    expect((await next.complete('s1', 'ok')).writers).toMatchObject([{ result: 'done' }]);
    expect(completes()).toHaveLength(2);
  });

  test('ends what a dead one left running of complete before anything else', async () => {
    harness.hook('w', telling());
    const before = await harness.start();
    await held(before, 's1');
    await before.close();
    const left = spawn('sleep', ['60'], { detached: true, stdio: 'ignore' });
    const ended = new Promise((resolve) => {
      left.once('exit', (_code, signal) => {
        resolve(signal);
      });
    });
    const { pid = 0 } = left;
    const { startTime } = processStat(pid) ?? {};
    const path = join(harness.dir, 'first/w');
    writeFileSync(
      join(harness.dir, 'run/kept/s1/writers'),
      `${JSON.stringify({ event: 'process', path, pid, startTime })}\n`,
    );
    const next = await harness.start();
    await next.warmUp();
    expect(await ended).toBe('SIGTERM');
    expect((await next.complete('s1', 'ok')).writers).toMatchObject([{ result: 'done' }]);
  });

  test('passes over what it cannot read, and clears it away', async () => {
    const before = await harness.start();
    await held(before, 's1');
    await before.close();
    writeFileSync(join(harness.dir, 'run/kept/s1/kept.json'), '{"version":2}');
    const next = await harness.start();
    await expect(next.complete('s1', 'ok')).rejects.toThrow('no session');
    expect(readdirSync(join(harness.dir, 'run/kept'))).toEqual([]);
  });
});

describe('beside another session', () => {
  test('nobody is told while the guest is held', async () => {
    harness.hook('w', telling());
    const coordinator = await harness.start();
    await held(coordinator, 's1');
    const session = await coordinator.freeze(request('s2'));
    await expect(coordinator.complete('s1', 'ok')).rejects.toThrow(
      'bridge-complete needs state idle, found frozen for test',
    );
    expect(completes()).toEqual([]);
    await session.thaw();
    expect((await coordinator.complete('s1', 'ok')).writers).toMatchObject([{ result: 'done' }]);
  });

  test('nobody is told while a rehearsal may hold a writer', async () => {
    harness.hook('w', telling());
    const coordinator = await harness.start();
    await held(coordinator, 's1');
    const other = spawn('sleep', ['60'], { stdio: 'ignore' });
    const { pid = 0 } = other;
    const { startTime } = processStat(pid) ?? {};
    const folder = join(harness.dir, 'run/sessions/rehearsal-1');
    mkdirSync(folder, { recursive: true });
    const head = { version: 1, session: 'rehearsal-1', requester: 'you', pid, startTime, leaseMs: 1, mountpoints: [] };
    writeFileSync(join(folder, 'head.json'), JSON.stringify(head));
    await expect(coordinator.complete('s1', 'ok')).rejects.toThrow(
      'found session rehearsal-1 of you, which is not over',
    );
    other.kill('SIGKILL');
    await once(other, 'exit');
    expect((await coordinator.complete('s1', 'ok')).writers).toMatchObject([{ result: 'done' }]);
  });

  test('a freeze waits until complete is over', async () => {
    const { wait, open } = gate();
    harness.hook('w', telling({}, `${wait}; log done`));
    const coordinator = await harness.start();
    await held(coordinator, 's1');
    const asked = coordinator.complete('s1', 'ok');
    await expect.poll(() => completes()).toHaveLength(1);
    const freezing = coordinator.freeze(request('s2'));
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(harness.journal.at(-1)).toBe('complete w ok position s1');
    open();
    await asked;
    await (await freezing).thaw();
    expect(completes()).toEqual(['complete w ok position s1', 'complete w done']);
    expect(harness.journal.indexOf('complete w done')).toBeLessThan(harness.journal.lastIndexOf('FIFREEZE /'));
  });

  test('a freeze that cannot wait so long is refused, and says for what', async () => {
    const { wait, open } = gate();
    harness.hook('w', telling({}, wait));
    const coordinator = await harness.start({}, { plainPrepareMs: 200 });
    await held(coordinator, 's1');
    const asked = coordinator.complete('s1', 'ok');
    await expect.poll(() => completes()).toHaveLength(1);
    await expect(coordinator.freeze(request('s2', { require: 'plain' }))).rejects.toThrow(
      /^complete of w still runs since session s1: freeze later, or shorten its timeout\.complete$/,
    );
    open();
    expect((await asked).writers).toMatchObject([{ result: 'done' }]);
  });

  test('a freeze that goes on without waiting any longer is not crossed by a complete that has not begun', async () => {
    const { wait, open } = gate();
    harness.hook('w', telling().replace('post) log', `post) ${wait}`));
    const coordinator = await harness.start({}, { plainPrepareMs: 200, hookFailure: 'lower' });
    await held(coordinator, 's1');
    const asked = coordinator.complete('s1', 'ok');
    const session = await coordinator.freeze(request('s2', { require: 'plain' }));
    open();
    await expect(asked).rejects.toThrow('found frozen for test');
    expect(completes()).toEqual([]);
    await session.thaw();
    expect((await coordinator.complete('s1', 'ok')).writers).toMatchObject([{ result: 'done' }]);
  });
});

describe('bridge-writers', () => {
  test('tells of each writer what became of it last, also after a start of the agent', async () => {
    harness.hook('good', `${described({ phases, covers: '/data /data/more' })}sleep 0.05`);
    harness.hook('bad', `${described({})}[ "$1" != verify ]`);
    harness.hook('idle', `${described({ covers: '/srv' })}true`);
    const leaves = 'mkdir -p "$FSFREEZE_SCRATCH/artefacts"; head -c 60000 /dev/zero >"$FSFREEZE_SCRATCH/artefacts/big"';
    harness.hook('note', `${described({ phases: 'freeze thaw', guarantee: 'none' })}${leaves}`);
    const coordinator = await harness.start();
    expect((await coordinator.writers()).map(({ last }) => last)).toEqual([undefined, undefined, undefined, undefined]);
    await held(coordinator, 's1', { disks: [{ serial: 'DATA' }] });
    await coordinator.close();
    const expected = [
      { name: 'bad', last: { session: 's1', verdict: 'failed', reason: 'verify: exit 1' } },
      { name: 'good', covers: ['/data', '/data/more'], last: { session: 's1', verdict: 'verified' } },
      { name: 'idle', covers: ['/srv'] },
      { name: 'note', accompanies: true, last: { session: 's1', verdict: 'claimed' } },
    ];
    const told = await coordinator.writers();
    expect(told).toMatchObject(expected);
    // prepare, freeze, verify twice, thaw, post.
    expect(told[1]?.last?.durationMs).toBeGreaterThan(6 * 50);
    expect(told[2]?.last).toBeUndefined();
    const again = await harness.start();
    expect(await again.writers()).toEqual(told);
    expect(coordinator.lastReport?.artefacts).toMatchObject([{ name: 'big' }]);
    // tmpfs is memory: what the requester has of the session is not kept.
    expect(statSync(join(harness.dir, 'run/kept/s1/kept.json')).size).toBeLessThan(10_000);
    await held(again, 's2', { disks: [{ serial: 'ROOT' }] });
    expect((await again.writers()).map(({ last }) => last?.session)).toEqual(['s2', 's1', 's2', 's2']);
  });
});
