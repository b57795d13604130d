// The session from freeze() to the report, over a fake machine and a fake freezer: order, levels, expiry, loss of the
// freezer, abort. How writers misbehave: test/integration/writers.test.ts.
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { chmodSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import type { FreezeReport, FreezeRequest } from '../../../src/consistency.js';
import { QuiesceError, StateError, ThawUnconfirmedError, UsageError } from '../../../src/errors.js';
import { createCoordinator } from '../../../src/freeze/coordinator.js';
import { FreezerHold } from '../../../src/freeze/freezer/hold.js';
import { processStat } from '../../../src/linux/process-stat.js';
import { silentLog } from '../../../src/freeze/options.js';
import { recoverSessions } from '../../../src/freeze/session/recovery.js';
import { described, FreezeHarness } from '../../support/freeze-harness.js';

let harness: FreezeHarness;
beforeEach(() => {
  harness = new FreezeHarness();
});
afterEach(async () => {
  await harness[Symbol.asyncDispose]();
});

const request = (more: Partial<FreezeRequest> = {}): FreezeRequest => ({
  requester: 'test',
  leaseMs: 5_000,
  require: 'auto',
  ...more,
});

const writerPhases = 'case $1 in *) log ;; esac';

async function failed(attempt: Promise<unknown>): Promise<{ error: Error; report: FreezeReport }> {
  const error = await attempt.then(
    () => new Error('it did not fail'),
    (reason: unknown) => reason as Error,
  );
  const facts = (error as { facts?: { report?: FreezeReport } }).facts;
  if (facts?.report === undefined) throw error;
  return { error, report: facts.report };
}

test('a guest without writers reaches filesystem, with every filesystem frozen and thawed by us', async () => {
  const coordinator = await harness.start();
  const session = await coordinator.freeze(request());
  expect(session.frozenCount).toBe(2);
  expect(harness.freezer.frozen).toEqual(['/data', '/']);
  expect(await coordinator.status()).toMatchObject({ state: 'frozen', requester: 'test' });
  expect(session.report).toMatchObject({ state: 'frozen', level: 'filesystem', outcome: 'ok' });
  const report = await session.thaw();
  expect(report).toMatchObject({ state: 'thawed', level: 'filesystem', outcome: 'ok' });
  expect(report.filesystems.map(({ mountpoint, held, disks }) => [mountpoint, held, disks[0]?.serial])).toEqual([
    ['/data', 'frozen', 'DATA'],
    ['/', 'frozen', 'ROOT'],
  ]);
  expect(report.frozenWindowMs).toBeGreaterThan(0);
  expect(report.steps.map(({ step }) => step)).toEqual([
    'plan',
    'prepare',
    'hold',
    'freeze',
    'frozen',
    'thaw',
    'release',
  ]);
  expect(await coordinator.status()).toEqual({ state: 'idle' });
  expect(harness.freezer.state).toBe('idle');
  expect(await session.thaw()).toEqual(report);
  expect(coordinator.lastReport).toEqual(report);
});

test('verified writers make it application, and hold in rank order around the freeze', async () => {
  harness.hook('a', `${described({ rank: 60 })}${writerPhases}`);
  harness.hook('b', `${described({ rank: 20 })}${writerPhases}`);
  harness.hook('c', writerPhases, 'qemu');
  const coordinator = await harness.start({}, { trustPlainHooks: true });
  const session = await coordinator.freeze(request());
  expect(session.report.level).toBe('application');
  const report = await session.thaw();
  expect(report.level).toBe('application');
  expect(report.pauseWindowMs).toBeGreaterThan(report.frozenWindowMs);
  const journal = harness.journal;
  expect(journal.slice(0, 3)).toEqual(['freeze b', 'freeze c', 'freeze a']);
  expect(journal.slice(3, 5).sort()).toEqual(['verify a', 'verify b']);
  expect(journal.slice(5, 9)).toEqual(['FIFREEZE /data', 'FIFREEZE /', 'FITHAW /data', 'FITHAW /']);
  expect(journal.slice(9, 11).sort()).toEqual(['verify a', 'verify b']);
  expect(journal.slice(11)).toEqual(['thaw a', 'thaw c', 'thaw b']);
});

test('a plain hook is a claim: auto refuses before anything is frozen, filesystem takes it', async () => {
  harness.hook('plain', writerPhases);
  const coordinator = await harness.start();
  const { error, report } = await failed(coordinator.freeze(request()));
  expect(error).toBeInstanceOf(QuiesceError);
  expect(error.message).toContain('application required');
  expect(report).toMatchObject({ outcome: 'failed', state: 'thawed', level: 'none' });
  expect(harness.journal).toEqual(['freeze plain', 'thaw plain']);
  const session = await coordinator.freeze(request({ require: 'filesystem' }));
  const lower = await session.thaw();
  expect(lower.level).toBe('filesystem');
  expect(lower.evidence.at(-1)).toBe('writer plain only claimed to hold, nothing verified it');
});

test('a foreign thaw breaks the session, and the writers are told', async () => {
  harness.hook('w', `${described({})}[ "$1" = thaw ] && log "$FSFREEZE_OUTCOME"; exit 0`);
  const coordinator = await harness.start({ thawErrno: { '/data': 22 } });
  const session = await coordinator.freeze(request());
  const report = await session.thaw();
  expect(report).toMatchObject({ outcome: 'broken', level: 'crash' });
  expect(report.error).toContain('/data');
  expect(harness.journal.at(-1)).toBe('thaw w broken');
});

test('the lease ends: thawed and released without being asked, and told once it is over', async () => {
  harness.hook('w', `${described({})}[ "$1" = thaw ] && log "$FSFREEZE_OUTCOME"; exit 0`);
  const released: [string, boolean][] = [];
  const coordinator = await harness.start(
    {},
    {
      onReleased: (report, byItself) => {
        released.push([report.outcome, byItself]);
      },
    },
  );
  const session = await coordinator.freeze(request({ leaseMs: 150 }));
  const report = await session.ended;
  expect(report).toMatchObject({ outcome: 'expired', level: 'crash', state: 'thawed' });
  expect(released).toEqual([['expired', true]]);
  expect(harness.journal.at(-1)).toBe('thaw w expired');
  await expect(session.renew(100)).rejects.toThrow('not frozen any more');
  expect((await session.thaw()).outcome).toBe('expired');
  expect(harness.freezer.state).toBe('idle');
});

test('renewed, it stays frozen beyond its first lease, up to the maximum', async () => {
  const coordinator = await harness.start({}, { leaseMaxMs: 500 });
  const session = await coordinator.freeze(request({ leaseMs: 200 }));
  await new Promise((resolve) => setTimeout(resolve, 120));
  const { remainingMs } = await session.renew(300);
  expect(remainingMs).toBeGreaterThan(200);
  expect((await session.renew(10_000)).remainingMs).toBeLessThan(500);
  expect((await session.thaw()).outcome).toBe('ok');
  await expect(coordinator.freeze(request({ leaseMs: 501 }))).rejects.toThrow('lease: expected 1 to 500 ms');
});

test('a critical section delays the thaw of an ended lease until it is over', async () => {
  const coordinator = await harness.start();
  const session = await coordinator.freeze(request({ leaseMs: 100 }));
  await session.critical(true, 2_000);
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(harness.freezer.frozen).toHaveLength(2);
  await session.critical(false);
  expect((await session.ended).outcome).toBe('expired');
  expect(harness.freezer.frozen).toEqual([]);
});

test('a critical section that is never ended delays the thaw no longer than its bound', async () => {
  const coordinator = await harness.start();
  const session = await coordinator.freeze(request({ leaseMs: 100 }));
  const started = performance.now();
  await session.critical(true, 400);
  expect((await session.ended).outcome).toBe('expired');
  expect(performance.now() - started).toBeGreaterThan(380);
  // Later than a second after the bound, the freezer would have killed its holder.
  expect(performance.now() - started).toBeLessThan(1_000);
});

/** A program that stands for `freezer --thaw-marked`: removes the marker, or leaves it. */
function fakeThawMarked(exitCode: number): string {
  const path = join(harness.dir, 'thaw-marked');
  const marker = join(harness.dir, 'run/frozen');
  const act = exitCode === 0 ? `rm -f '${marker}'` : 'echo "/data is stuck" >&2';
  writeFileSync(path, `#!/bin/sh\necho "$1" >>'${harness.journalPath}'\n${act}\nexit ${exitCode}\n`);
  chmodSync(path, 0o755);
  writeFileSync(marker, 'fsfreeze-bridge 1 0 0 x -\n');
  return path;
}

test('the freezer dies: thawed by marker, broken, writers released', async () => {
  harness.hook('w', `${described({})}[ "$1" = thaw ] && log "$FSFREEZE_OUTCOME"; exit 0`);
  const coordinator = await harness.start({}, { freezerPath: fakeThawMarked(0) });
  const session = await coordinator.freeze(request());
  harness.freezer.die();
  const report = await session.ended;
  expect(report).toMatchObject({ outcome: 'broken', level: 'crash' });
  expect(report.filesystems.map(({ held }) => held)).toEqual(['none', 'none']);
  expect(harness.journal.slice(-2)).toEqual(['--thaw-marked', 'thaw w broken']);
  expect((await session.thaw()).outcome).toBe('broken');
});

test('the freezer dies and the marker cannot be thawed: the requester is told that nobody confirmed it', async () => {
  harness.hook('w', `${described({})}${writerPhases}`);
  const coordinator = await harness.start({}, { freezerPath: fakeThawMarked(1) });
  const session = await coordinator.freeze(request());
  harness.freezer.die();
  await expect(session.thaw()).rejects.toThrow(ThawUnconfirmedError);
  await expect(session.thaw()).rejects.toThrow('/data is stuck');
  expect(harness.journal.at(-1)).toBe('thaw w');
});

test('a freezer that is silent past the lease is killed, and what it froze is thawed by marker', async () => {
  const victim = spawn('sleep', ['60'], { stdio: 'ignore' });
  const died = new Promise<string | null>((resolve) => {
    victim.once('exit', (_code, signal) => {
      resolve(signal);
    });
  });
  const pid = victim.pid ?? 0;
  const coordinator = await harness.start(
    { identity: { pid, startTime: processStat(pid)?.startTime ?? '' } },
    { freezerPath: fakeThawMarked(0) },
  );
  const session = await coordinator.freeze(request({ leaseMs: 100 }));
  harness.freezer.silent = true;
  const report = await session.ended;
  expect(report).toMatchObject({ outcome: 'broken', level: 'crash' });
  expect(await died).toBe('SIGKILL');
  expect(harness.journal.at(-1)).toBe('--thaw-marked');
});

test('a process that has taken over the pid of a silent freezer is left alone', async () => {
  const bystander = spawn('sleep', ['60'], { stdio: 'ignore' });
  try {
    const coordinator = await harness.start(
      { identity: { pid: bystander.pid ?? 0, startTime: '1' } },
      { freezerPath: fakeThawMarked(0) },
    );
    const session = await coordinator.freeze(request({ leaseMs: 100 }));
    harness.freezer.silent = true;
    await session.ended;
    expect(bystander.exitCode).toBeNull();
    expect(bystander.signalCode).toBeNull();
  } finally {
    bystander.kill();
  }
});

test('a thaw that the kernel does not return in time is reported, and confirmed late', async () => {
  const coordinator = await harness.start({ lateThaws: 1 });
  const session = await coordinator.freeze(request());
  expect((await session.thaw()).outcome).toBe('ok');
});

test('a thaw that nobody confirms throws, after the writers were released', async () => {
  harness.hook('w', `${described({})}${writerPhases}`);
  const coordinator = await harness.start({ lateThaws: 5 });
  const session = await coordinator.freeze(request());
  const { error, report } = await failed(session.thaw());
  expect(error).toBeInstanceOf(ThawUnconfirmedError);
  expect(report).toMatchObject({ outcome: 'broken', level: 'crash' });
  expect(harness.journal).toContain('thaw w');
});

test.each([
  ['EBUSY is a stranger: crash', 16, 'crash', 'somebody else holds it frozen (EBUSY)'],
  ['EIO: crash', 5, 'crash', 'FIFREEZE: EIO (i/o error)'],
])('%s', async (_name, errno, level, reason) => {
  const coordinator = await harness.start({ freezeErrno: { '/data': errno } });
  const { report } = await failed(coordinator.freeze(request()));
  expect(report.outcome).toBe('failed');
  expect(harness.freezer.frozen).toEqual([]);
  const session = await coordinator.freeze(request({ require: 'crash' }));
  const lower = await session.thaw();
  expect(lower.level).toBe(level);
  expect(lower.filesystems.find(({ mountpoint }) => mountpoint === '/data')).toMatchObject({ held: 'none', reason });
});

test.each([
  ['syncfs tells of', { syncErrno: { '/data': 5 } }],
  ['a late syncfs tells of, with the freeze', { lateSyncErrno: { '/data': 5 } }],
])('a lost write that %s: crash, though FIFREEZE returned 0', async (_name, options) => {
  const coordinator = await harness.start(options);
  const { report } = await failed(coordinator.freeze(request()));
  expect(report.outcome).toBe('failed');
  expect(harness.freezer.frozen).toEqual([]);
  const session = await coordinator.freeze(request({ require: 'crash' }));
  expect(harness.freezer.frozen).toContain('/data');
  const lower = await session.thaw();
  expect(lower).toMatchObject({ outcome: 'ok', level: 'crash' });
  expect(lower.filesystems.find(({ mountpoint }) => mountpoint === '/data')).toMatchObject({
    held: 'none',
    freezeErrno: 0,
    thawErrno: 0,
    reason: expect.stringContaining('never reached its disk (syncfs: EIO (i/o error))') as string,
  });
});

test('a late syncfs that went well costs nothing', async () => {
  const coordinator = await harness.start({ lateSyncErrno: { '/data': 0 } });
  const session = await coordinator.freeze(request());
  expect((await session.thaw()).level).toBe('filesystem');
});

test('plain passes over EBUSY and EOPNOTSUPP, uncounted, and ends at any other error', async () => {
  const coordinator = await harness.start({ freezeErrno: { '/data': 16 } });
  const session = await coordinator.freeze(request({ require: 'plain' }));
  expect(session.frozenCount).toBe(1);
  await session.thaw();
  expect(session.thawedCount).toBe(1);
  await harness.restartFreezer({ freezeErrno: { '/data': 5 } });
  await expect(coordinator.freeze(request({ require: 'plain' }))).rejects.toThrow('failed to freeze /data: EIO');
  expect(harness.freezer.frozen).toEqual([]);
  await harness.restartFreezer({ openErrno: { '/data': 2 } });
  await expect(coordinator.freeze(request({ require: 'plain' }))).rejects.toThrow('failed to freeze /data: not opened');
});

test('plain ends at a required writer that fails, and passes over mount points that are none', async () => {
  const coordinator = await harness.start();
  const session = await coordinator.freeze(request({ require: 'plain', mountpoints: ['/nonexistent'] }));
  expect(session.frozenCount).toBe(0);
  expect(await coordinator.status()).toMatchObject({ state: 'frozen' });
  expect((await session.thaw()).outcome).toBe('ok');
  await expect(coordinator.freeze(request({ mountpoints: ['/nonexistent'] }))).rejects.toThrow(
    'mount points: expected paths of the mount table, found /nonexistent',
  );
  harness.hook('w', 'log; [ "$1" = thaw ]');
  await expect(coordinator.freeze(request({ require: 'plain' }))).rejects.toThrow(
    'a required writer failed: w: freeze',
  );
  expect(harness.journal.slice(-2)).toEqual(['freeze w', 'thaw w']);
});

test('with nothing to freeze the lease still ends by itself', async () => {
  harness.hook('w', writerPhases);
  const coordinator = await harness.start();
  const session = await coordinator.freeze(request({ require: 'plain', mountpoints: ['/proc/no'], leaseMs: 100 }));
  expect(harness.freezer.state).toBe('planned');
  expect((await session.ended).outcome).toBe('expired');
  expect(harness.journal).toEqual(['freeze w', 'thaw w']);
  expect(harness.freezer.state).toBe('idle');
});

test('a filesystem that cannot freeze is held if nothing was written to it', async () => {
  const efi = harness.machine.virtioDisk('vdc', 4, 'EFI');
  harness.machine.mount({ device: efi.device, mountpoint: '/efi', type: 'vfat', source: '/dev/vdc' });
  const coordinator = await harness.start({ freezeErrno: { '/efi': 95 } });
  const session = await coordinator.freeze(request());
  expect(session.report.level).toBe('filesystem');
  const report = await session.thaw();
  expect(report.level).toBe('filesystem');
  expect(report.filesystems.find(({ mountpoint }) => mountpoint === '/efi')?.held).toBe('synced');
  const again = await coordinator.freeze(request());
  harness.machine.writes(efi.path, 1);
  const written = await again.thaw();
  expect(written.level).toBe('crash');
  expect(written.evidence.at(-1)).toContain('it was written to before the thaw');
});

test('only the disks of the cut are frozen, each judged by itself', async () => {
  harness.machine.virtioDisk('vdc', 4, 'SPARE');
  const coordinator = await harness.start();
  const session = await coordinator.freeze(request({ disks: [{ serial: 'DATA' }] }));
  expect(harness.freezer.frozen).toEqual(['/data']);
  const report = await session.thaw();
  expect(report.filesystems.map(({ mountpoint, concerned }) => [mountpoint, concerned])).toEqual([
    ['/data', true],
    ['/', false],
  ]);
  expect(report.level).toBe('filesystem');
  const byAddress = await coordinator.freeze(request({ disks: [{ pciAddress: '0000:00:02.0' }] }));
  expect(harness.freezer.frozen).toEqual(['/']);
  await byAddress.thaw();
  const unknown = await coordinator.freeze(request({ disks: [{ serial: 'NOBODY' }], require: 'crash' }));
  expect((await unknown.thaw()).evidence.at(-1)).toContain('disk serial NOBODY is none that this guest knows');
  const spare = await coordinator.freeze(request({ disks: [{ serial: 'SPARE' }] }));
  expect((await spare.thaw()).evidence[0]).toContain('has no mounted filesystem, and nothing was written to it');
});

test('a second freeze is refused with its holder, in this process and from another', async () => {
  const coordinator = await harness.start();
  const session = await coordinator.freeze(request({ requester: 'host tool' }));
  await expect(coordinator.freeze(request())).rejects.toThrow(StateError);
  const other = createCoordinator(harness.options);
  await expect(other.freeze(request({ requester: 'backup' }))).rejects.toMatchObject({
    message: 'a freeze needs state idle, found held by host tool',
    facts: { holder: { requester: 'host tool' } },
  });
  expect(await other.status()).toMatchObject({ state: 'frozen', requester: 'host tool' });
  expect(other.lastReport).toBeUndefined();
  expect(harness.freezer.frozen).toHaveLength(2);
  await session.thaw();
});

test.each(['plan', 'sync', 'freeze'] as const)('aborted in %s: thawed before the promise settles', async (step) => {
  const coordinator = await harness.start({ freezeMs: 2_000, syncMs: 2_000 });
  const abort = new AbortController();
  if (step === 'plan') abort.abort();
  if (step === 'freeze') await harness.restartFreezer({ freezeMs: 2_000 });
  setTimeout(() => {
    abort.abort();
  }, 200);
  const started = Date.now();
  await expect(coordinator.freeze(request(), abort.signal)).rejects.toThrow('aborted');
  expect(Date.now() - started).toBeLessThan(1_500);
  expect(harness.freezer.frozen).toEqual([]);
  expect(harness.freezer.state).toBe('idle');
  expect(await coordinator.status()).toEqual({ state: 'idle' });
  if (step === 'freeze') expect(harness.journal).toContain('FITHAW /data');
});

test('a FIFREEZE that hangs: its thaw is not told as done, and the log stays held until it is', async () => {
  const released: string[] = [];
  const coordinator = await harness.start(
    { hangs: ['/data'], freezeMs: 60_000 },
    {
      onReleased: ({ state, outcome }) => {
        released.push(`${state} ${outcome}`);
      },
    },
  );
  const marker = join(harness.dir, 'run/frozen');
  writeFileSync(marker, 'fsfreeze-bridge 1 0 0 hung -\n');
  const abort = new AbortController();
  setTimeout(() => {
    abort.abort();
  }, 100);
  const { error, report } = await failed(coordinator.freeze(request({ session: 'hung' }), abort.signal));
  expect(error).toBeInstanceOf(ThawUnconfirmedError);
  expect(error.message).toContain('/data');
  expect(report).toMatchObject({ state: 'frozen', outcome: 'failed' });
  expect(await coordinator.status()).toMatchObject({ state: 'thawing', session: 'hung' });
  await new Promise((resolve) => setTimeout(resolve, 700));
  expect(released).toEqual([]);
  await expect(coordinator.close()).rejects.toThrow(ThawUnconfirmedError);
  rmSync(marker);
  await vi.waitFor(() => {
    expect(released).toEqual(['thawed failed']);
  }, 2_000);
  expect(coordinator.lastReport).toMatchObject({ state: 'thawed' });
});

test('nobody confirms the thaw: the report does not say thawed', async () => {
  const coordinator = await harness.start({ lateThaws: 5 });
  const session = await coordinator.freeze(request());
  const { report } = await failed(session.thaw());
  expect(report).toMatchObject({ state: 'frozen', outcome: 'broken' });
  expect((await session.thawed).state).toBe('thawed');
});

test('a thaw that is confirmed by the marker at the second try is confirmed', async () => {
  const coordinator = await harness.start({ lateThaws: 1, diesAtLateThaw: true }, { freezerPath: fakeThawMarked(0) });
  const session = await coordinator.freeze(request());
  expect(await session.thaw()).toMatchObject({ outcome: 'broken', state: 'thawed' });
});

test('an answer to the freeze that comes after the thaw was told arms no watch over the lease', async () => {
  await harness.start({ answersFreezeLate: true });
  const places = { socketPath: join(harness.dir, 'run/freezer.sock'), markerPath: join(harness.dir, 'none') };
  let ended = 0;
  const hold = await FreezerHold.take(
    { ...places, freezerPath: undefined },
    { session: 's', owner: 'o', leaseMaxMs: 1000, budgetMs: 1000, freezeLimitMs: 1000, expedite: false },
    async (freezer) => {
      await freezer.add(0, 1, '1:1', '/x');
    },
    () => {
      ended++;
    },
  );
  const freezing = hold.freeze(50);
  await hold.thaw();
  await freezing;
  await new Promise((resolve) => setTimeout(resolve, 1_200));
  expect(ended).toBe(0);
  hold.close();
});

test('an empty list of disks is refused: it is not the same as all', async () => {
  const coordinator = await harness.start();
  await expect(coordinator.freeze(request({ disks: [] }))).rejects.toThrow(UsageError);
  await expect(coordinator.freeze(request({ disks: [] }))).rejects.toThrow('disks: expected at least one');
});

test('a filesystem mounted while writers prepared is not held: refused, or crash where that will do', async () => {
  const late = harness.machine.virtioDisk('vdc', 4, 'LATE');
  const line = `99 30 ${late.device} / /late rw shared:9 - ext4 /dev/vdc rw`;
  harness.hook(
    'w',
    `${described({ phases: 'prepare freeze verify thaw' })}[ "$1" != prepare ] || echo '${line}' >>'${harness.machine.mountinfoPath}'`,
  );
  const coordinator = await harness.start();
  const { error } = await failed(coordinator.freeze(request()));
  expect(error.message).toContain('/late (ext4) was mounted after the session was planned');
  expect(harness.journal).not.toContain('FIFREEZE /');
});

test('a filesystem that comes, goes or becomes writable while the guest is held makes the cut a crash', async () => {
  const { path, device } = harness.machine.virtioDisk('vdc', 4, 'MORE');
  expect(path).toContain('vdc');
  const coordinator = await harness.start();
  const mountinfo = readFileSync(harness.machine.mountinfoPath, 'utf8');
  const held = async (change: (text: string) => string): Promise<FreezeReport> => {
    writeFileSync(harness.machine.mountinfoPath, `${mountinfo}99 30 ${device} / /ro ro - ext4 /dev/vdc ro\n`);
    const session = await coordinator.freeze(request());
    expect(session.report.level).toBe('filesystem');
    writeFileSync(harness.machine.mountinfoPath, change(readFileSync(harness.machine.mountinfoPath, 'utf8')));
    return await session.thaw();
  };
  const same = await held((text) => text.replace('/ro ro', '/ro ro,noatime'));
  expect(same.level).toBe('filesystem');
  const writable = await held((text) => text.replace('/ro ro - ext4 /dev/vdc ro', '/ro rw - ext4 /dev/vdc rw'));
  expect(writable.level).toBe('crash');
  expect(writable.evidence.at(-1)).toBe('/ro (ext4) became writable after the session was planned');
  const gone = await held((text) => text.replace(/.* \/data .*\n/, ''));
  expect(gone.level).toBe('crash');
  expect(gone.evidence.at(-1)).toBe('/data (xfs) was unmounted after the session was planned');
  const came = await held((text) => `${text}98 30 254:99 / /new rw - ext4 /dev/vdz rw\n`);
  expect(came.level).toBe('crash');
  expect(came.evidence.at(-1)).toBe('/new (ext4) was mounted after the session was planned');
});

test('a mount table that cannot be read after the thaw makes the cut a crash, and keeps no writer held', async () => {
  harness.hook('w', `${described({})}log`);
  const coordinator = await harness.start();
  const session = await coordinator.freeze(request());
  rmSync(harness.machine.mountinfoPath);
  const report = await session.thaw();
  expect(report).toMatchObject({ outcome: 'ok', level: 'crash', state: 'thawed' });
  expect(report.evidence.at(-1)).toContain('the mount table could not be read again');
  expect(harness.journal.at(-1)).toBe('thaw w');
});

test('a writer that is dropped in or changed after the plan has not been run as it is', async () => {
  const late = join(harness.dir, 'first/late');
  const body = described({ phases: 'prepare freeze verify thaw' });
  harness.hook('w', `${body}[ "$1" != prepare ] || { cp "$0" '${late}'; }`);
  const coordinator = await harness.start();
  const { error } = await failed(coordinator.freeze(request()));
  expect(error.message).toContain(`writer ${late} was not run: it is new or was changed`);
  rmSync(late);
  harness.hook('w', `${body}[ "$1" != prepare ] || chmod 700 "$0"`);
  const session = await coordinator.freeze(request({ require: 'filesystem' }));
  expect((await session.thaw()).level).toBe('filesystem');
  harness.hook('w', body);
  expect((await (await coordinator.freeze(request())).thaw()).level).toBe('application');
});

test('neither a swap partition nor a filesystem speaks for the rest of its disk', async () => {
  const disk = harness.machine.virtioDisk('vdc', 4, 'MIXED');
  const part = (n: number): string => harness.machine.block(`${disk.path}/vdc${n}`, { partition: true });
  harness.machine.mount({ device: part(1), mountpoint: '/mixed', source: '/dev/vdc1' });
  part(2);
  part(3);
  const lv = 'devices/virtual/block/dm-0';
  harness.machine.block(lv, { major: 253 });
  harness.machine.link(`${disk.path}/vdc3/holders/dm-0`, lv);
  writeFileSync(join(harness.dir, 'swaps'), 'Filename Type Size Used Priority\n/dev/vdc2 partition 1 0 -2\n');
  const coordinator = await harness.start();
  const cut = async (whileHeld: () => void): Promise<FreezeReport> => {
    const session = await coordinator.freeze(request({ disks: [{ serial: 'MIXED' }] }));
    whileHeld();
    return await session.thaw();
  };
  const swapped = await cut(() => {
    harness.machine.writes(`${disk.path}/vdc2`, 5);
    harness.machine.writes(`${disk.path}/vdc1`, 5);
  });
  expect(swapped.level).toBe('filesystem');
  expect(swapped.evidence).toContain(
    'disk serial MIXED (/dev/vdc): /dev/dm-0 has no mounted filesystem, and nothing was written to it',
  );
  const raw = await cut(() => {
    harness.machine.writes(lv, 5);
  });
  expect(raw.level).toBe('crash');
  expect(raw.evidence.at(-1)).toBe(
    'disk serial MIXED (/dev/vdc): /dev/dm-0 has no mounted filesystem, and may have been written to',
  );
});

test('a filesystem with one of its two disks in the cut is worth nothing', async () => {
  const [a, b] = [harness.machine.virtioDisk('vdc', 4, 'HALF-A'), harness.machine.virtioDisk('vdd', 5, 'HALF-B')];
  const lv = 'devices/virtual/block/dm-0';
  const device = harness.machine.block(lv, { major: 253 });
  harness.machine.link(`${lv}/slaves/vdc`, a.path);
  harness.machine.link(`${lv}/slaves/vdd`, b.path);
  harness.machine.mount({ device, mountpoint: '/wide', source: '/dev/mapper/wide' });
  const coordinator = await harness.start();
  const { error } = await failed(coordinator.freeze(request({ disks: [{ serial: 'HALF-A' }], require: 'crash' })));
  expect(error.message).toContain('/wide (ext4) lies on /dev/vdd too, which is not in the cut');
  const session = await coordinator.freeze(request({ disks: [{ serial: 'HALF-A' }], require: 'none' }));
  expect((await session.thaw()).level).toBe('none');
  const both = await coordinator.freeze(request({ disks: [{ serial: 'HALF-A' }, { serial: 'HALF-B' }] }));
  expect((await both.thaw()).level).toBe('filesystem');
});

test('a cluster filesystem that cannot be held keeps the level down, and is never opened', async () => {
  const disk = harness.machine.virtioDisk('vdc', 4, 'SHARED');
  harness.machine.mount({ device: disk.device, mountpoint: '/shared', type: 'ocfs2', source: '/dev/vdc' });
  const coordinator = await harness.start();
  const session = await coordinator.freeze(request({ require: 'crash' }));
  expect(harness.freezer.frozen).toEqual(['/data', '/']);
  const report = await session.thaw();
  expect(report.level).toBe('crash');
  expect(report.evidence.at(-1)).toContain('/shared (ocfs2) was not held: ocfs2 is shared with other machines');
});

test('read-only filesystems of the cut are named to writers, those beside it are not', async () => {
  const ro = harness.machine.virtioDisk('vdc', 4, 'RO');
  harness.machine.mount({ device: ro.device, mountpoint: '/ro', source: '/dev/vdc', options: 'ro' });
  harness.hook('w', `${described({})}[ "$1" != freeze ] || log $FSFREEZE_MOUNTPOINTS`);
  const coordinator = await harness.start();
  await (await coordinator.freeze(request())).thaw();
  expect(harness.journal[0]).toBe('freeze w / /data /ro');
  await (await coordinator.freeze(request({ disks: [{ serial: 'DATA' }] }))).thaw();
  expect(harness.journal).toContain('freeze w /data');
});

test('a thaw that fails is tried once more; one that fails again is kept for the next start of the agent, too', async () => {
  const errors: string[] = [];
  const log = {
    ...silentLog,
    error: (_facts: object, text: string) => {
      errors.push(text);
    },
  };
  const once = join(harness.dir, 'once');
  harness.hook('flaky', `${described({})}log; [ "$1" != thaw ] || { [ -e '${once}' ] || { : >'${once}'; exit 1; }; }`);
  const coordinator = await harness.start({}, { log });
  await (await coordinator.freeze(request({ session: 'first' }))).thaw();
  await coordinator.close();
  expect(harness.journal.filter((line) => line === 'thaw flaky')).toHaveLength(2);
  expect(errors).toEqual([]);
  expect(readdirSync(join(harness.dir, 'run/sessions'))).toEqual([]);

  const mended = join(harness.dir, 'mended');
  harness.hook('stuck', `${described({})}log; [ "$1" != thaw ] || [ -e '${mended}' ] || { echo no >&2; exit 1; }`);
  const next = await harness.start({}, { log });
  await (await next.freeze(request({ session: 'second' }))).thaw();
  await next.close();
  expect(harness.journal.filter((line) => line === 'thaw stuck')).toHaveLength(2);
  expect(errors).toEqual(['not released, tried again and again: stuck: no']);
  // As after the death of its process.
  const head = join(harness.dir, 'run/sessions/second/head.json');
  writeFileSync(head, readFileSync(head, 'utf8').replace(/"pid":\d+/, '"pid":999999999'));
  expect(await recoverSessions(harness.options)).toMatchObject([{ ended: true, writers: [{ released: false }] }]);
  writeFileSync(mended, '');
  expect(await recoverSessions(harness.options)).toMatchObject([
    { session: 'second', ended: true, writers: [{ name: 'stuck', released: true }] },
  ]);
  expect(readdirSync(join(harness.dir, 'run/sessions'))).toEqual([]);
});

test('with nothing to freeze the freezer bounds the writers by the lease, also a renewed one', async () => {
  harness.hook('w', writerPhases);
  const coordinator = await harness.start();
  const session = await coordinator.freeze(request({ require: 'plain', mountpoints: ['/proc/no'], leaseMs: 2_000 }));
  const budgets = (): number[] =>
    readFileSync(harness.journalPath, 'utf8')
      .split('\n')
      .flatMap((line) => (line.startsWith('freezer plan ') ? [Number(line.split(' ')[5])] : []));
  const SLACK = 30_000;
  // 5 s to prepare, as it is a plain one, and 15 s to hold.
  expect(budgets()).toEqual([20_000 + SLACK, 2_000 + SLACK]);
  expect((await session.renew(3_000)).remainingMs).toBeGreaterThan(2_500);
  expect(budgets().at(-1)).toBe(3_000 + SLACK);
  expect((await session.thaw()).outcome).toBe('ok');
  // Enough to release in, whatever was left of the lease: a verify, and two thaws of 10 s, each with 3 s to be ended.
  expect(budgets().at(-1)).toBe(15_000 + 2 * 13_000 + SLACK);
  expect(harness.freezer.state).toBe('idle');
});

test('while writers are released the lock is kept, so that the freezer ends a process that is stopped then', async () => {
  const states: string[] = [];
  harness.hook('w', 'case $1 in thaw) sleep 0.3;; esac');
  const coordinator = await harness.start();
  const session = await coordinator.freeze(request({ require: 'filesystem' }));
  const thawing = session.thaw();
  const watch = setInterval(() => states.push(`${harness.freezer.frozen.length} ${harness.freezer.state}`), 20);
  expect(await thawing).toMatchObject({ outcome: 'ok' });
  clearInterval(watch);
  expect(states).toContain('0 planned');
  expect(harness.freezer.state).toBe('idle');
});

test("a freezer of the service manager's is waited for, and none of our own started meanwhile", async () => {
  const started = join(harness.dir, 'own-started');
  const freezerPath = join(harness.dir, 'own-freezer');
  writeFileSync(freezerPath, `#!/bin/sh\n: >'${started}'\nexit 1\n`, { mode: 0o755 });
  const unit = join(harness.dir, 'unit');
  writeFileSync(unit, '');
  const managed = { freezerPath, serviceManager: { running: harness.dir, units: ['/nonexistent', unit] } };
  const coordinator = createCoordinator({ ...harness.options, ...managed, unitRetryMs: 5_000 });
  setTimeout(() => void harness.restartFreezer(), 300);
  const session = await coordinator.freeze(request());
  expect(session.frozenCount).toBe(2);
  await session.thaw();
  await coordinator.close();
  expect(existsSync(started)).toBe(false);
  await harness.freezer.close();
  rmSync(join(harness.dir, 'run/freezer.sock'), { force: true });
  const impatient = createCoordinator({ ...harness.options, ...managed, unitRetryMs: 300 });
  const from = performance.now();
  await expect(impatient.freeze(request())).rejects.toThrow('could not be started');
  expect(performance.now() - from).toBeGreaterThan(290);
  expect(existsSync(started)).toBe(true);
});

test('a writer that holds nothing and verifies counts as verified; its proofs are part of the pause window', async () => {
  harness.hook('w', `${described({ phases: 'prepare verify', guarantee: 'recoverable' })}log`);
  const coordinator = await harness.start();
  const report = await (await coordinator.freeze(request())).thaw();
  expect(report).toMatchObject({ level: 'application', writers: [{ verdict: 'verified' }] });
  expect(report.pauseWindowMs).toBeGreaterThan(report.frozenWindowMs);
  expect(harness.journal.filter((line) => line.endsWith(' w'))).toEqual(['prepare w', 'verify w', 'verify w']);
});

describe('a writer that only accompanies', () => {
  const note = (body: string, more = {}): void => {
    harness.hook('note', `${described({ phases: 'prepare freeze thaw', guarantee: 'none', ...more })}log; ${body}`);
  };

  test('makes no application of a guest without others', async () => {
    note(':');
    const coordinator = await harness.start();
    const report = await (await coordinator.freeze(request())).thaw();
    expect(report).toMatchObject({ outcome: 'ok', level: 'filesystem', writers: [] });
    expect(report.accompanying).toMatchObject([{ name: 'note', required: false, verdict: 'claimed' }]);
    expect(harness.journal.filter((line) => line.endsWith(' note'))).toEqual([
      'prepare note',
      'freeze note',
      'thaw note',
    ]);
  });

  test.each(['auto', 'application', 'plain'] as const)('fails, and %s goes on, with a warning', async (require) => {
    note('[ "$1" != freeze ] || { echo no paper >&2; exit 1; }', { required: true });
    harness.hook('w', `${described({})}log`);
    const coordinator = await harness.start();
    const report = await (await coordinator.freeze(request({ require }))).thaw();
    expect(report).toMatchObject({ outcome: 'ok', level: 'application' });
    expect(report.evidence).toContain('warning: note, which only accompanies, failed: freeze: exit 1: no paper');
    expect(harness.journal.filter((line) => line.endsWith(' note')).at(-1)).toBe('thaw note');
  });

  test('that cannot let go is told so again: something of it may hold', async () => {
    note('[ "$1" != thaw ] || exit 1');
    const coordinator = await harness.start();
    const report = await (await coordinator.freeze(request())).thaw();
    expect(report).toMatchObject({ outcome: 'unreleased', level: 'filesystem' });
    expect(coordinator.unreleased).toMatchObject([{ name: 'note' }]);
  });

  test('is listed as such, in words that a host before it can read', async () => {
    note(':');
    const [listed] = await (await harness.start()).writers();
    expect(listed).toMatchObject({ name: 'note', accompanies: true, required: false });
    expect(listed).not.toHaveProperty('guarantee');
  });
});

describe('artefacts', () => {
  const leaves = 'mkdir -p "$FSFREEZE_SCRATCH/artefacts"; echo "$1" >"$FSFREEZE_SCRATCH/artefacts/$1"; log';

  test('what a writer left up to the end of its thaw is in the final report', async () => {
    harness.hook('w', `${described({})}${leaves}`);
    const session = await (await harness.start()).freeze(request());
    expect(session.report).not.toHaveProperty('artefacts');
    expect((await session.thaw()).artefacts).toEqual(
      ['freeze', 'thaw', 'verify'].map((phase) => ({
        writer: 'w',
        name: phase,
        text: `${phase}\n`,
        size: phase.length + 1,
      })),
    );
  });

  test('an attempt that failed has none', async () => {
    harness.hook('w', `${described({})}${leaves}; [ "$1" != verify ]`);
    const { report } = await failed((await harness.start()).freeze(request()));
    expect(report).not.toHaveProperty('artefacts');
  });
});

test('close() thaws what is held, and refuses what comes later', async () => {
  const coordinator = await harness.start();
  await coordinator.freeze(request());
  const session = coordinator.session;
  await coordinator.close();
  expect(harness.freezer.frozen).toEqual([]);
  // Its requester does not know, and may cut now.
  expect(coordinator.lastReport).toMatchObject({
    outcome: 'broken',
    level: 'crash',
    error: 'the agent was stopped while the guest was held',
  });
  expect((await session?.thaw())?.outcome).toBe('broken');
  await expect(coordinator.freeze(request())).rejects.toThrow('shutting down');
});

test('without a freezer it is refused, and nothing is left behind', async () => {
  const coordinator = createCoordinator(harness.options);
  await expect(coordinator.freeze(request())).rejects.toThrow('no freezer answers at');
  expect(existsSync(join(harness.dir, 'run/sessions')) ? readdirSync(join(harness.dir, 'run/sessions')) : []).toEqual(
    [],
  );
});

test('scratch is kept until post, and removed after it', async () => {
  harness.hook(
    'w',
    `${described({ phases: 'prepare freeze verify thaw post' })}
    case $1 in prepare) echo kept >"$FSFREEZE_SCRATCH/state" ;; post) log "$(cat "$FSFREEZE_SCRATCH/state") $FSFREEZE_OUTCOME" ;; esac`,
  );
  const coordinator = await harness.start();
  const session = await coordinator.freeze(request({ session: 'mine' }));
  expect(readdirSync(join(harness.dir, 'run/sessions'))).toEqual(['mine']);
  await session.thaw();
  await coordinator.close();
  expect(harness.journal.at(-1)).toBe('post w kept ok');
  expect(readdirSync(join(harness.dir, 'run/sessions'))).toEqual([]);
  expect(coordinator.lastReport?.writers[0]?.phases.at(-1)?.phase).toBe('post');
});

describe('a post that outlasts what the next plain freeze may wait', () => {
  const slowPost = async (hookFailure: 'refuse' | 'lower') => {
    const go = join(harness.dir, 'go');
    harness.hook(
      'w',
      `${described({ phases: 'prepare freeze verify thaw post' })}log "$1"; [ "$1" != post ] || until [ -e '${go}' ]; do sleep 0.05; done`,
    );
    const coordinator = await harness.start({}, { plainPrepareMs: 300, hookFailure });
    await (await coordinator.freeze(request({ session: 's1', require: 'plain' }))).thaw();
    await expect.poll(() => harness.journal.at(-1)).toBe('post w post');
    const letGo = (): void => {
      writeFileSync(go, '');
    };
    return { coordinator, letGo };
  };
  const runs = (): number => harness.journal.filter((line) => line.startsWith('prepare w')).length;

  test('refuses it where the hook vetoes', async () => {
    const { coordinator, letGo } = await slowPost('refuse');
    await expect(coordinator.freeze(request({ require: 'plain' }))).rejects.toThrow(
      /^post of w still runs since session s1: freeze later, or shorten its timeout\.post$/,
    );
    letGo();
  });

  test('leaves the hook out and lowers the level where it does not, in every session until it is over', async () => {
    const { coordinator, letGo } = await slowPost('lower');
    for (const session of ['s2', 's3']) {
      const report = await (await coordinator.freeze(request({ session, require: 'plain' }))).thaw();
      expect(report).toMatchObject({ outcome: 'incomplete', level: 'filesystem' });
      expect(report.writers).toMatchObject([
        { name: 'w', verdict: 'failed', reason: 'left out: its post still runs since session s1', phases: [] },
      ]);
    }
    expect(runs()).toBe(1);
    letGo();
    const report = await (await coordinator.freeze(request({ session: 's4', require: 'plain' }))).thaw();
    expect(report.outcome).toBe('ok');
    expect(runs()).toBe(2);
  });
});

test.each(['../x', '', 'a b', '.', 'x'.repeat(65)])('session id %j is refused', async (session) => {
  const coordinator = await harness.start();
  await expect(coordinator.freeze(request({ session }))).rejects.toThrow('session id: expected');
});
