// What a plain freeze promises to hooks and writers (qga/README.md): who may refuse it, how long it prepares, how long
// writers stay held, and what is told of those that did not do their part. Real scripts and processes, a fake freezer.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { spawn } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fsfreezeHandlers } from '../../src/agent/handlers/fsfreeze.js';
import { lateThawNote } from '../../src/agent/late-thaw-note.js';
import { SessionKeeper } from '../../src/agent/session-keeper.js';
import type { FreezeRequest } from '../../src/consistency.js';
import { describeError, QuiesceError } from '../../src/errors.js';
import { createCoordinator } from '../../src/freeze/coordinator.js';
import { foldersWithHook } from '../../src/freeze/writers/dispatcher.js';
import { silentLog, type CoordinatorOptions, type LocalSession } from '../../src/freeze/options.js';
import { recoverSessions } from '../../src/freeze/session/recovery.js';
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

const plain: FreezeRequest = { requester: 'guest-fsfreeze-freeze', leaseMs: 5_000, require: 'plain' };
const short = { freeze: 400, thaw: 400, verify: 400 };

async function freeze(options: CoordinatorOptions = {}, request: Partial<FreezeRequest> = {}): Promise<LocalSession> {
  const coordinator = await harness.start({}, { writerLimitsMs: short, ...options });
  return await coordinator.freeze({ ...plain, ...request });
}

async function refused(options: CoordinatorOptions = {}): Promise<string> {
  const error: unknown = await freeze(options).catch((reason: unknown) => reason);
  if (!(error instanceof QuiesceError)) throw new Error('it was not refused');
  expect(harness.freezer.frozen).toEqual([]);
  return error.message;
}

function logOf(lines: string[]): CoordinatorOptions {
  const note = (_facts: object, text: string): void => {
    lines.push(text);
  };
  return { log: { ...silentLog, warn: note, error: note } };
}

const pause = async (ms: number): Promise<void> => {
  await new Promise((resolve) => setTimeout(resolve, ms));
};

describe('a writer that we ship never refuses it', () => {
  test.each([
    ['fails in prepare', 'prepare', 'echo why >&2; exit 1', 'prepare: exit 1: why'],
    ['fails in freeze', 'freeze', 'echo why >&2; exit 1', 'freeze: exit 1: why'],
    ['hangs in freeze', 'freeze', 'sleep 600', 'freeze: not done within 400 ms'],
    ['fails in verify', 'verify', 'echo why >&2; exit 1', 'verify: exit 1: why'],
  ])('one that %s lowers the level, and says why', async (_what, phase, body, reason) => {
    const phases = 'prepare freeze verify thaw';
    harness.hook('w', `${described({ phases })}log; [ "$1" != ${phase} ] || { ${body}; }`, 'shipped');
    const lines: string[] = [];
    const session = await freeze(logOf(lines));
    expect(session.frozenCount).toBe(2);
    const report = await session.thaw();
    expect(report).toMatchObject({ level: 'filesystem', outcome: 'incomplete' });
    expect(report.evidence.at(-1)).toBe(`writer w failed: ${reason}`);
    expect(lines).toContain(`goes on without w: ${reason}`);
  });

  test('one that cannot be run safely lowers it, too', async () => {
    const path = harness.hook('w', `${described({})}log`, 'shipped');
    chmodSync(path, 0o775);
    const report = await (await freeze()).thaw();
    expect(report).toMatchObject({ level: 'filesystem', outcome: 'incomplete' });
    expect(report.evidence.at(-1)).toContain(`chmod go-w ${path}`);
  });

  test("it is told by where it lies: a link to it is it, a copy of it is the administrator's", async () => {
    const path = harness.hook('w', `${described({})}[ "$1" != freeze ]`, 'shipped');
    symlinkSync(path, join(harness.dir, 'first/w'));
    await (await freeze()).thaw();
    rmSync(join(harness.dir, 'first/w'));
    copyFileSync(path, join(harness.dir, 'first/w'));
    expect(await refused()).toContain('a required writer failed: w: freeze: exit 1');
  });

  test('where a level is asked for, that decides', async () => {
    harness.hook('w', `${described({})}[ "$1" != freeze ]`, 'shipped');
    for (const require of ['auto', 'application'] as const)
      await expect(freeze({}, { require })).rejects.toThrow('a required writer failed: w: freeze: exit 1');
    expect((await (await freeze({}, { require: 'filesystem' })).thaw()).level).toBe('filesystem');
  });

  requires('root', 'unshare')('50-postgresql', () => {
    test('with a PostgreSQL in a container: frozen, at filesystem, with the reason', async () => {
      copyFileSync(
        join(import.meta.dirname, '../../fsfreeze-hook.d/50-postgresql'),
        join(harness.dir, 'shipped/50-pg'),
      );
      chmodSync(join(harness.dir, 'shipped/50-pg'), 0o755);
      const data = join(harness.dir, 'inside');
      mkdirSync(data);
      copyFileSync('/bin/sleep', join(harness.dir, 'postgres'));
      writeFileSync(join(data, 'postmaster.pid'), '1\n/data\n1700000000\n5432\n/run/postgresql\n*\n');
      const script = `cd '${data}' && exec '${join(harness.dir, 'postgres')}' 600`;
      const container = spawn('unshare', ['--pid', '--fork', '--kill-child', 'sh', '-c', script]);
      try {
        await pause(500);
        const session = await freeze();
        expect(session.frozenCount).toBe(2);
        const report = await session.thaw();
        expect(report).toMatchObject({ level: 'filesystem', outcome: 'incomplete' });
        expect(report.evidence.at(-1)).toMatch(/^writer 50-pg failed: prepare: exit 1: .*runs in a container/);
      } finally {
        container.kill('SIGKILL');
      }
    });
  });
});

describe("the administrator's own hooks refuse it", () => {
  const published = {
    '20-postgresql': 'psql -U nobody -c CHECKPOINT >/dev/null 2>&1',
    '30-last-test': '[ -f /nowhere ]',
  };

  test.each(Object.entries(published))('%s, which ends with a false status', async (name, body) => {
    harness.hook(name, body, 'qemu');
    const text = await refused();
    expect(text).toContain(`a required writer failed: ${name}: freeze: exit`);
    expect(text).toContain('(hook-failure=lower in [bridge] freezes all the same)');
  });

  test('with hook-failure=lower the freeze goes on past every one of them; level and log tell', async () => {
    for (const [name, body] of Object.entries(published)) harness.hook(name, body, 'qemu');
    harness.hook('40-hangs', '[ "$1" = thaw ] || sleep 600', 'qemu');
    harness.hook('50-good', 'log', 'qemu');
    const lines: string[] = [];
    const session = await freeze({ hookFailure: 'lower', trustPlainHooks: true, ...logOf(lines) });
    expect(harness.journal[0]).toBe('freeze 50-good');
    expect(session.report).toMatchObject({ level: 'filesystem', outcome: 'incomplete' });
    expect(lines[0]).toMatch(
      /^goes on without 20-postgresql: .*; 30-last-test: .*; 40-hangs: .*not done within 400 ms$/,
    );
    await session.thaw();
    expect(harness.journal.at(-1)).toBe('thaw 50-good');
  });

  test('hook-failure=lower is for plain freezes: where a level is asked for it decides', async () => {
    harness.hook('h', '[ "$1" != freeze ]', 'qemu');
    const asked = freeze({ hookFailure: 'lower' }, { require: 'application' });
    await expect(asked).rejects.toThrow('a required writer failed: h: freeze: exit 1');
  });

  test('required=false on a described one is its own leave', async () => {
    harness.hook('h', `${described({ required: false })}[ "$1" != freeze ]`);
    expect((await (await freeze()).thaw()).level).toBe('filesystem');
  });
});

describe('a hook that cannot be run safely refuses it, and names file and remedy', () => {
  test('a hook that the group may write', async () => {
    const path = harness.hook('h', 'log', 'qemu');
    chmodSync(path, 0o775);
    expect(await refused()).toBe(
      `a hook cannot be run safely: ${path} is writable by others (mode 775): chmod go-w ${path} ` +
        '(hook-failure=lower in [bridge] freezes all the same)',
    );
    expect(harness.journal).toEqual([]);
    expect(harness.coordinator.lastReport).toMatchObject({ outcome: 'failed', unsafeWriters: [{ what: path }] });
  });

  test.each([0o775, 0o2775])('a folder that the group may write (%o)', async (mode) => {
    const path = harness.hook('h', 'log', 'qemu');
    const folder = join(harness.dir, 'qemu');
    chmodSync(folder, mode);
    expect(await refused()).toContain(
      `${path}: ${folder} is writable by others (mode ${mode.toString(8)}): chmod go-w`,
    );
  });

  test('a typo in a description', async () => {
    const path = harness.hook('h', '# fsfreeze-writer: phases=freze thaw\nlog');
    expect(await refused()).toContain(`${path}: bad description: phases.0: Invalid type: Expected`);
  });

  test.each([
    [
      'a link to /dev/null',
      (path: string) => {
        symlinkSync('/dev/null', path);
      },
    ],
    [
      'a file that is not executable',
      (path: string) => {
        writeFileSync(path, 'notes\n', { mode: 0o664 });
      },
    ],
  ])('%s in a folder that the group may write is switched off, not unsafe', async (_what, make) => {
    make(join(harness.dir, 'qemu/h'));
    chmodSync(join(harness.dir, 'qemu'), 0o2775);
    expect((await (await freeze()).thaw()).outcome).toBe('ok');
  });

  test('with hook-failure=lower it is not run; outcome and report tell it from one that was', async () => {
    chmodSync(harness.hook('h', 'log', 'qemu'), 0o775);
    const skipped = await (await freeze({ hookFailure: 'lower' })).thaw();
    expect(skipped).toMatchObject({ level: 'filesystem', outcome: 'incomplete' });
    chmodSync(join(harness.dir, 'qemu/h'), 0o755);
    expect(await (await freeze()).thaw()).toMatchObject({ level: 'filesystem', outcome: 'ok' });
  });
});

describe('limits', () => {
  test('a hook has the time that its key gives it, within the hold', async () => {
    harness.hook('40-slow', 'log; [ "$1" != freeze ] || sleep 0.8', 'qemu');
    expect(await refused({ plainHookLimitMs: 400 })).toContain('40-slow: freeze: not done within 400 ms');
    await (await freeze({ plainHookLimitMs: 2_000 })).thaw();
    expect(await refused({ plainHookLimitMs: 2_000, holdBudgetMs: 500 })).toMatch(
      /40-slow: freeze: not done within (4\d\d|500) ms/,
    );
  });

  test('it prepares for a short time, and writers are told how short; where a level is asked for, for long', async () => {
    const phases = 'prepare freeze verify thaw';
    const slow = 'log "$FSFREEZE_LIMIT_MS"; [ "$1" != prepare ] || sleep 1.5';
    harness.hook('w', `${described({ phases })}${slow}`, 'shipped');
    const started = performance.now();
    const session = await freeze({ plainPrepareMs: 600 });
    expect(performance.now() - started).toBeLessThan(1_500);
    expect(session.report.evidence.at(-1)).toMatch(/^writer w failed: prepare: not done within (5\d\d|600) ms/);
    expect(Number(harness.journal[0]?.split(' ')[2])).toBeLessThanOrEqual(600);
    await session.thaw();
    const asked = await freeze({ plainPrepareMs: 600 }, { require: 'application' });
    expect((await asked.thaw()).level).toBe('application');
  });
});

describe('with more mount points than a variable can hold', () => {
  const many = 6_000;
  const manyMounts = (): void => {
    for (let n = 0; n < many; n++)
      harness.machine.mount({
        device: harness.disks.data.device,
        mountpoint: `/jails/${n}/usr/share`,
        type: 'xfs',
        source: '/dev/vdb',
      });
  };

  test('every writer is started, and reads them in a file', async () => {
    manyMounts();
    const count = 'log "${FSFREEZE_MOUNTPOINTS-unset} $(wc -l <"$FSFREEZE_MOUNTPOINTS_FILE")"';
    harness.hook('d', `${described({})}${count}`);
    harness.hook('p', count, 'qemu');
    await (await freeze({ writerLimitsMs: {} })).thaw();
    const lines = harness.journal.filter((line) => / [dp] /.test(line)).sort();
    expect(lines).toEqual(
      ['freeze d', 'freeze p', 'thaw d', 'thaw p', 'verify d', 'verify d'].map((head) => `${head} unset ${many + 2}`),
    );
  });

  test('a hook that is given them as arguments is not started, with the way out', async () => {
    manyMounts();
    harness.hook('a', 'log', 'dragonsdawn');
    expect(await refused()).toContain(
      `a: freeze: not started: ${many + 2} mount points do not fit on its command line: in /etc/fsfreeze-bridge/`,
    );
  });

  test('as long as they are short they are in the variable, too', async () => {
    harness.hook('p', 'log $FSFREEZE_MOUNTPOINTS $(cat "$FSFREEZE_MOUNTPOINTS_FILE")', 'qemu');
    await (await freeze()).thaw();
    expect(harness.journal[0]).toBe('freeze p / /data / /data');
  });
});

describe('a hook of -F', () => {
  const folderOf = (hook: string): CoordinatorOptions => ({ writerFolders: foldersWithHook(hook, harness.folders) });

  test('is started under the path given, so that it finds what lies beside it', async () => {
    const dir = join(harness.dir, 'backup');
    mkdirSync(dir);
    writeFileSync(join(dir, 'hook.conf'), 'APP=shop\n');
    const body = 'cd "$(dirname -- "$0")" && . ./hook.conf && echo "$0 $APP $*" >>';
    writeFileSync(join(dir, 'hook.sh'), `#!/bin/sh\n${body}'${harness.journalPath}'\n`, { mode: 0o755 });
    await (await freeze(folderOf(join(dir, 'hook.sh')))).thaw();
    const own = harness.journal.filter((line) => line.includes('hook.sh'));
    expect(own).toEqual(['freeze', 'thaw'].map((verb) => `${join(dir, 'hook.sh')} shop ${verb}`));
  });

  test('that dispatches with commands of its own is run as it is, and what it dispatches to once', async () => {
    const hook = join(harness.dir, 'fsfreeze-hook');
    mkdirSync(`${hook}.d`);
    const says = (what: string): string => `echo "${what} $1" >>'${harness.journalPath}'`;
    writeFileSync(hook, `#!/bin/sh\n${says('own')}\nfor f in "$0".d/*; do "$f" "$1"; done\n`, { mode: 0o755 });
    writeFileSync(`${hook}.d/app`, `#!/bin/sh\n${says('app')}\n`, { mode: 0o755 });
    const folders = foldersWithHook(hook, [...harness.folders, { path: `${hook}.d`, style: 'qemu' }]);
    await (await freeze({ writerFolders: folders })).thaw();
    const said = harness.journal.filter((line) => /^(own|app)/.test(line));
    expect(said).toEqual(['own freeze', 'app freeze', 'own thaw', 'app thaw']);
  });

  test.each([
    ['is not there', () => undefined, 'it is not there'],
    [
      'is not executable',
      (path: string) => {
        writeFileSync(path, '#!/bin/sh\n');
      },
      'not executable: chmod +x',
    ],
  ])('that %s refuses the freeze', async (_what, make, reason) => {
    make(join(harness.dir, 'own'));
    expect(await refused(folderOf(join(harness.dir, 'own')))).toContain(`${join(harness.dir, 'own')}: ${reason}`);
  });
});

describe('with 0 filesystems frozen', () => {
  const context = { origin: 'host', name: 'host' } as const;
  async function commands(plainLeaseMs = 5_000) {
    // ZFS alone, and /boot/efi, which cannot freeze.
    const coordinator = await harness.start({ freezeErrno: { '/': 95, '/data': 95 } }, { writerLimitsMs: short });
    const keeper = new SessionKeeper(coordinator, lateThawNote(join(harness.dir, 'run')));
    return { coordinator, handlers: fsfreezeHandlers({ coordinator, keeper, plainLeaseMs }) };
  }

  test('writers stay held until the thaw', async () => {
    harness.hook('20-times', 'log', 'qemu');
    const { handlers } = await commands();
    expect(await handlers['guest-fsfreeze-freeze']({}, context)).toBe(0);
    expect(await handlers['guest-fsfreeze-status']({}, context)).toBe('frozen');
    await pause(300);
    expect(harness.journal.at(-1)).not.toContain('thaw');
    expect(await handlers['guest-fsfreeze-thaw']({}, context)).toBe(0);
    expect(harness.journal.at(-1)).toBe('thaw 20-times');
  });

  test('and until the lease without one', async () => {
    harness.hook('20-times', 'log "$FSFREEZE_OUTCOME"', 'qemu');
    const { handlers } = await commands(600);
    expect(await handlers['guest-fsfreeze-freeze']({}, context)).toBe(0);
    await pause(200);
    expect(harness.journal.at(-1)).not.toContain('thaw');
    await expect.poll(() => harness.journal.at(-1), { timeout: 3_000 }).toBe('thaw 20-times expired');
    await expect(handlers['guest-fsfreeze-thaw']({}, context)).rejects.toThrow('before the requester asked');
  });

  test('without a writer nothing is held, and nobody need thaw', async () => {
    const { coordinator, handlers } = await commands();
    expect(await handlers['guest-fsfreeze-freeze']({}, context)).toBe(0);
    expect(await coordinator.status()).toEqual({ state: 'idle' });
  });
});

describe('a hook whose thaw fails', () => {
  const stuck = (name = 'stuck'): string => {
    const mended = join(harness.dir, 'mended');
    harness.hook(name, `log; [ "$1" != thaw ] || [ -e '${mended}' ] || { echo no >&2; exit 1; }`, 'qemu');
    return mended;
  };

  test('is told by the outcome, listed, and tried again until it lets go', async () => {
    const mended = stuck();
    const path = join(harness.dir, 'qemu/stuck');
    const report = await (await freeze()).thaw();
    expect(report).toMatchObject({ outcome: 'unreleased', unreleased: [{ what: path, reason: 'no' }] });
    const { coordinator } = harness;
    expect(coordinator.unreleased).toMatchObject([{ name: 'stuck', path, reason: 'no', tries: 0 }]);
    await expect.poll(() => coordinator.unreleased[0]?.tries, { timeout: 5_000 }).toBe(1);
    // The pause grows.
    expect(coordinator.unreleased[0]?.nextTryMs).toBeGreaterThan(1_000);
    writeFileSync(mended, '');
    await expect.poll(() => coordinator.unreleased, { timeout: 5_000 }).toEqual([]);
    expect(harness.journal.filter((line) => line === 'thaw stuck')).toHaveLength(4);
    expect(readdirSync(join(harness.dir, 'run/sessions'))).toEqual([]);
  });

  test('is told to let go for its own session, also after the next one, which it let go', async () => {
    const mended = stuck();
    await (await freeze()).thaw();
    expect(harness.coordinator.unreleased).toHaveLength(1);
    writeFileSync(mended, '');
    const before = harness.journal.filter((line) => line === 'thaw stuck').length;
    await (await harness.coordinator.freeze(plain)).thaw();
    await expect.poll(() => harness.coordinator.unreleased, { timeout: 5_000 }).toEqual([]);
    expect(harness.journal.filter((line) => line === 'thaw stuck')).toHaveLength(before + 2);
    await harness.coordinator.close();
    expect(readdirSync(join(harness.dir, 'run/sessions'))).toEqual([]);
  });

  test('and hangs: a new freeze does not wait for it, and none is tried while something is held', async () => {
    harness.hook(
      'h',
      `log; [ "$1" != thaw ] || { [ -e '${join(harness.dir, 'mended')}' ] || exec sleep 600; }`,
      'qemu',
    );
    await (await freeze({ writerLimitsMs: { thaw: 1_500 } })).thaw();
    const tries = (): number => harness.journal.filter((line) => line === 'thaw h').length;
    await expect.poll(tries, { timeout: 5_000 }).toBe(2);
    const started = performance.now();
    const session = await harness.coordinator.freeze(plain);
    expect(performance.now() - started).toBeLessThan(1_400);
    await pause(2_500);
    expect(tries()).toBe(2);
    writeFileSync(join(harness.dir, 'mended'), '');
    await session.thaw();
    await expect.poll(() => harness.coordinator.unreleased, { timeout: 5_000 }).toEqual([]);
  });

  test('and that the next agent cannot release when it starts either is tried by that one, too', async () => {
    const mended = stuck();
    await (await freeze({}, { session: 's' })).thaw();
    await harness.coordinator.close();
    // As after the death of its process.
    const head = join(harness.dir, 'run/sessions/s/head.json');
    writeFileSync(head, readFileSync(head, 'utf8').replace(/"pid":\d+/, '"pid":999999999'));
    await recoverSessions(harness.options);
    const next = createCoordinator(harness.options);
    await next.warmUp();
    expect(next.unreleased).toMatchObject([{ session: 's', name: 'stuck' }]);
    writeFileSync(mended, '');
    await expect.poll(() => next.unreleased, { timeout: 5_000 }).toEqual([]);
    await next.close();
  });

  test('three that hang, and the agent is told to stop meanwhile: each gets its first try in the time there is', async () => {
    for (const name of ['a', 'b', 'c']) harness.hook(name, 'log; [ "$1" != thaw ] || exec sleep 600', 'qemu');
    const session = await freeze({ writerLimitsMs: { thaw: 60_000 } });
    const thawing = session.thaw();
    await expect.poll(() => harness.journal.at(-1), { timeout: 5_000 }).toBe('thaw c');
    const started = performance.now();
    await harness.coordinator.close();
    expect(performance.now() - started).toBeLessThan(24_000);
    expect(harness.journal.slice(-3)).toEqual(['thaw c', 'thaw b', 'thaw a']);
    expect((await thawing).unreleased).toHaveLength(3);
  }, 60_000);
});

describe('while `post` of the session before runs', () => {
  async function inPost(options: CoordinatorOptions = {}): Promise<void> {
    const phases = 'freeze verify thaw post';
    harness.hook('w', `${described({ phases })}log; [ "$1" != post ] || exec sleep 6`);
    await (await freeze({ ...options, writerLimitsMs: {} })).thaw();
    await expect.poll(() => harness.journal.at(-1)).toBe('post w');
  }

  test('an attempt that is aborted is answered at once', async () => {
    await inPost();
    const abort = new AbortController();
    const freezing = harness.coordinator.freeze(plain, abort.signal).catch((error: unknown) => error);
    await pause(100);
    const started = performance.now();
    abort.abort();
    expect(((await freezing) as Error).message).toBe('the attempt was aborted');
    expect(performance.now() - started).toBeLessThan(500);
    expect(await harness.coordinator.status()).toEqual({ state: 'idle' });
  });

  test('a freeze waits as long as it may prepare, and then names what stands in the way', async () => {
    await inPost({ plainPrepareMs: 700 });
    await expect(harness.coordinator.freeze(plain)).rejects.toThrow(
      /^post of w still runs since session .*timeout\.post$/,
    );
    // It comes to its end by itself.
    await pause(5_500);
    await (await harness.coordinator.freeze(plain)).thaw();
  }, 20_000);
});

describe('a full /run', () => {
  test('refuses the freeze, and its error names the file once', async () => {
    harness.hook('w', `${described({ phases: 'freeze thaw', guarantee: '' })}log`);
    const notes = join(harness.dir, 'run/sessions/full/writers');
    // Before the first note: from then on the file stays open.
    const log = (line: string): void => {
      if (line.startsWith('sync') && !existsSync(notes)) symlinkSync('/dev/full', notes);
    };
    const coordinator = await harness.start({ log }, { writerLimitsMs: short });
    await expect(coordinator.freeze({ ...plain, session: 'full' })).rejects.toThrow(
      /^a required writer failed: w: freeze: not started, its start cannot be noted: ENOSPC: no space left on device, write '\S+\/writers' \(hook-/,
    );
    expect(harness.journal).toEqual([]);
  });

  test('before there is a session, too', async () => {
    writeFileSync(join(harness.dir, 'run/sessions'), '');
    const error: unknown = await freeze().catch((reason: unknown) => reason);
    expect(describeError(error)).toBe(`EEXIST: file already exists, mkdir '${join(harness.dir, 'run/sessions')}'`);
  });
});

test('what a killed retry leaves is not there any more', async () => {
  const pidFile = join(harness.dir, 'pid');
  harness.hook('h', `log; [ "$1" != thaw ] || { echo $$ >'${pidFile}'; exec sleep 600; }`, 'qemu');
  await (await freeze()).thaw();
  await expect.poll(() => harness.journal.filter((line) => line === 'thaw h').length, { timeout: 5_000 }).toBe(2);
  await harness.coordinator.close();
  expect(existsSync(pidFile) && alive(Number(readFileSync(pidFile, 'utf8')))).toBe(false);
});
