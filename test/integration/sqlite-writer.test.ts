// fsfreeze-hook.d/50-sqlite with databases in a directory of its own: asked by hand, and by a coordinator whose freezer is
// a fake one. Nothing is frozen.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { execFileSync, spawn, spawnSync, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'; // prettier-ignore
import type { Readable, Writable } from 'node:stream';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FreezeHarness } from '../support/freeze-harness.js';
import { requires } from '../support/requires.js';
import { ResidentHook } from '../support/resident-hook.js';

const hooks = join(import.meta.dirname, '../../fsfreeze-hook.d');
const hook = join(hooks, '50-sqlite');

requires(
  'root',
  'findmnt',
  'sqlite3',
)('50-sqlite', () => {
  let dir: string;
  let conf: string;
  /** One with a rollback journal, one with a WAL. */
  let plain: string;
  let wal: string;

  function sql(database: string, text: string): string {
    const { status, stdout, stderr } = spawnSync('sqlite3', ['-batch', database, text], { encoding: 'utf8' });
    return status === 0 ? stdout.trim() : stderr.trim();
  }
  /** A session beside that has run `text`, and ends with its input. */
  async function aside(database: string, text: string): Promise<ChildProcessByStdio<Writable, Readable, null>> {
    const session = spawn('sqlite3', ['-batch', database], { stdio: ['pipe', 'pipe', 'inherit'] });
    session.stdin.write(`${text}\nSELECT 'done';\n`);
    await once(session.stdout, 'data');
    return session;
  }
  async function ended(session: ChildProcessByStdio<Writable, Readable, null>): Promise<void> {
    const exit = once(session, 'exit');
    session.stdin.end();
    await exit;
  }
  const mountOf = (path: string): string =>
    execFileSync('findmnt', ['-n', '-o', 'TARGET', '-T', path], { encoding: 'utf8' }).trim().split('\n').at(-1) ?? '/';
  const settings = (...lines: string[]): void => {
    writeFileSync(conf, lines.join('\n')); // an editor may leave the last line without its end
  };
  const start = (mountpoints = mountOf(dir), ...shell: string[]): ResidentHook =>
    new ResidentHook([...shell, hook], { FSFREEZE_SQLITE_CONF: conf, FSFREEZE_MOUNTPOINTS: mountpoints });
  async function held(...shell: string[]): Promise<ResidentHook> {
    const resident = start(mountOf(dir), ...shell);
    expect(await resident.ask('prepare')).toBe('ok');
    expect(await resident.ask('freeze')).toBe('ok');
    return resident;
  }

  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'fsb-sqlite-'));
    conf = join(dir, 'conf');
    plain = join(dir, "it's a.db");
    wal = join(dir, 'wal.db');
    for (const [database, mode] of [
      [plain, 'delete'],
      [wal, 'wal'],
    ] as const)
      sql(database, `PRAGMA journal_mode=${mode}; CREATE TABLE t (n);`);
  });
  afterAll(() => {
    rmSync(dir, { recursive: true, force: true });
  });
  beforeEach(() => {
    settings('# two databases', plain, wal);
  });

  test.each([[[]], [['busybox', 'sh']], [['bash', '--posix']]])(
    'writes are refused, reads are not, until thaw (shell: %j)',
    async (shell) => {
      await using resident = await held(...shell);
      for (const database of [plain, wal]) {
        expect(sql(database, 'INSERT INTO t VALUES (1)')).toContain('database is locked');
        expect(sql(database, 'SELECT COUNT(*) FROM t')).toMatch(/^\d+$/);
      }
      expect(await resident.ask('verify')).toBe('ok');
      expect(await resident.ask('verify')).toBe('ok');
      expect(await resident.ask('thaw ok')).toBe('ok');
      for (const database of [plain, wal]) expect(sql(database, 'INSERT INTO t VALUES (1)')).toBe('');
    },
  );

  test('a database behind a link; one on a mount point that is not ASCII; one whose name has a backslash', async () => {
    const link = join(dir, 'link.db');
    symlinkSync(wal, link);
    settings(link);
    await using linked = await held();
    expect(await linked.ask('verify')).toBe('ok');

    const far = join(dir, 'büro 1');
    mkdirSync(far);
    const script = `mount -t tmpfs none '${far}' && cp "$1" '${far}/a.db' && exec '${hook}' resident`;
    settings(join(far, 'a.db'));
    await using there = start(far, 'unshare', '-m', 'sh', '-c', script, 'sh', plain);
    expect(await there.ask('prepare')).toBe('ok');

    settings(join(dir, 'gone\\now.db'));
    await using gone = start();
    expect(await gone.ask('prepare')).toBe(`error ${dir}/gone\\now.db (in ${conf}) is not there, or no file`);
  });

  test('twenty databases at once', async () => {
    const many = Array.from({ length: 20 }, (_, n) => join(dir, `${n}.db`));
    for (const database of many) sql(database, 'CREATE TABLE t (n)');
    settings(...many);
    await using resident = await held();
    for (const database of many) expect(sql(database, 'INSERT INTO t VALUES (1)')).toContain('database is locked');
    expect(await resident.ask('verify')).toBe('ok');
    await resident.kill();
    for (const database of many)
      await expect.poll(() => sql(database, 'INSERT INTO t VALUES (1)'), { timeout: 2_000 }).toBe('');
  });

  test('with its client it takes at most 3 MiB of its own', async () => {
    settings(wal);
    await using resident = await held();
    const dirtyKib = resident.dirtyKib();
    expect(dirtyKib).toHaveLength(2);
    expect(dirtyKib.reduce((a, b) => a + b)).toBeLessThan(3 * 1024);
  });

  test('through the agent: application; a client that is killed while frozen: not, and why', async () => {
    await using harness = new FreezeHarness();
    if (mountOf(dir) !== '/')
      harness.machine.mount({ ...harness.disks.root, mountpoint: mountOf(dir), source: '/dev/vda' });
    for (const name of ['.functions', '.one-by-one'])
      copyFileSync(join(hooks, name), join(harness.dir, 'shipped', name));
    const copy = join(harness.dir, 'shipped/50-sqlite');
    writeFileSync(copy, readFileSync(hook, 'utf8').replaceAll('/etc/fsfreeze-bridge/sqlite.conf', conf));
    chmodSync(copy, 0o755);
    const coordinator = await harness.start();
    const freeze = () => coordinator.freeze({ requester: 'test', leaseMs: 5_000, require: 'auto' });

    const good = await freeze();
    expect(sql(wal, 'INSERT INTO t VALUES (2)')).toContain('database is locked');
    expect(await good.thaw()).toMatchObject({
      level: 'application',
      outcome: 'ok',
      writers: [{ verdict: 'verified', guarantee: 'held' }],
    });

    const bad = await freeze();
    process.kill(holderOf(wal), 'SIGKILL');
    const lost = await bad.thaw();
    expect(lost.level).toBe('filesystem');
    expect(lost.writers[0]?.reason).toBe(`verify: ${wal}: its transaction has ended: its sqlite3 has ended`);
    expect(sql(plain, 'INSERT INTO t VALUES (3)')).toBe('');
  });

  /** The sqlite3 of the writer that has it open. */
  const holderOf = (database: string): number =>
    Number(execFileSync('sh', ['-c', `ls -l /proc/[0-9]*/fd 2>/dev/null | awk -v db='${database}' '/^\\/proc/ {split($1, p, "/")} $NF == db {print p[3]; exit}'`], { encoding: 'utf8' })); // prettier-ignore

  test('killed alone it holds nothing', async () => {
    const resident = await held();
    await resident.kill();
    for (const database of [plain, wal])
      await expect.poll(() => sql(database, 'INSERT INTO t VALUES (4)'), { timeout: 1_000 }).toBe('');
    rmSync(resident.scratch, { recursive: true });
  });

  test('a transaction that goes on: given up after 3 s, and nothing is held', async () => {
    const writer = await aside(wal, 'BEGIN IMMEDIATE; INSERT INTO t VALUES (5);');
    await using resident = start();
    expect(await resident.ask('prepare')).toBe('ok');
    const started = performance.now();
    expect(await resident.ask('freeze')).toContain(`error ${wal}: database is locked`);
    expect(performance.now() - started).toBeLessThan(4_500);
    expect(sql(plain, 'INSERT INTO t VALUES (5)')).toBe('');
    await ended(writer);
  });

  test('a client that is not there, or ends at once: refused at once, with why', async () => {
    settings('CLIENT=/nowhere/sqlite3', plain, wal);
    await using missing = start();
    expect(await missing.ask('prepare')).toMatch(/\.db: its sqlite3 has ended: .*\/nowhere\/sqlite3: not found$/);
    settings('CLIENT=/bin/false', plain, wal);
    await using silent = start();
    expect(await silent.ask('prepare')).toMatch(/\.db: its sqlite3 has ended$/);
    // It can say so: nothing is held.
    expect(await silent.ask('thaw failed')).toBe('ok');
  });

  test('a long reader keeps neither the hold nor others waiting', async () => {
    const readers = await Promise.all([plain, wal].map((one) => aside(one, 'BEGIN; SELECT COUNT(*) FROM t;')));
    sql(wal, 'INSERT INTO t VALUES (6)');
    await using resident = await held();
    expect(await resident.ask('verify')).toBe('ok');
    await Promise.all(readers.map(ended));
  });

  test('a database locked for one process alone: refused, with the error', async () => {
    const owner = await aside(plain, 'PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT;');
    await using resident = start();
    expect(await resident.ask('prepare')).toContain(`error ${plain}: database is locked`);
    await ended(owner);
  });

  test('a database that is gone, and one put in its place while it is held', async () => {
    settings(plain, join(dir, 'gone.db'));
    await using gone = start();
    expect(await gone.ask('prepare')).toBe(`error ${dir}/gone.db (in ${conf}) is not there, or no file`);
    const moving = join(dir, 'moving.db');
    sql(moving, 'CREATE TABLE t (n)');
    settings(moving);
    await using resident = await held();
    copyFileSync(moving, `${moving}.new`);
    renameSync(`${moving}.new`, moving);
    expect(await resident.ask('verify')).toBe(
      `error ${moving}: the file was put in place of the one that is locked, or is gone`,
    );
  });

  test('none listed or all outside the set: not applicable; a line that is none: refused', async () => {
    settings('# none');
    await using none = start();
    expect(await none.ask('prepare')).toBe('ended: 3');
    rmSync(conf);
    await using missing = start();
    expect(await missing.ask('prepare')).toBe('ended: 3');
    settings(plain, wal);
    await using outside = start('/nowhere');
    expect(await outside.ask('prepare')).toBe('ended: 3');
    settings('a.db');
    await using bad = start();
    expect(await bad.ask('prepare')).toBe(
      `error ${conf}: expected the absolute path of a database, or CLIENT=/PATH, found: a.db`,
    );
  });

  test('of two databases one outside the set is passed over', async () => {
    const other = mkdtempSync('/dev/shm/fsb-sqlite-');
    try {
      const far = join(other, 'far.db');
      sql(far, 'CREATE TABLE t (n)');
      settings(far, plain);
      await using resident = await held();
      expect(sql(plain, 'INSERT INTO t VALUES (7)')).toContain('database is locked');
      expect(sql(far, 'INSERT INTO t VALUES (7)')).toBe('');
      expect(await resident.ask('verify')).toBe('ok');
      expect(await resident.ask('thaw ok')).toBe('ok');
    } finally {
      rmSync(other, { recursive: true });
    }
  });
});
