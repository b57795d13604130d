// fsfreeze-hook.d/50-mariadb against a real server in a directory of its own: asked by hand, and by a coordinator whose
// freezer is a fake one. Nothing is frozen.
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { serversOfThisMachine } from '../support/database-servers.js';
import { FreezeHarness } from '../support/freeze-harness.js';
import { requires } from '../support/requires.js';
import { ResidentHook } from '../support/resident-hook.js';

const hooks = join(import.meta.dirname, '../../fsfreeze-hook.d');
const hook = join(hooks, '50-mariadb');
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

requires(
  'root',
  'findmnt',
  'mariadbd',
  'mariadb-install-db',
  'mariadb',
)('50-mariadb', () => {
  let dir: string;
  let conf: string;
  let server: ChildProcess | undefined;
  /** Other servers of this machine are none of ours. */
  let foreign: string[] = [];

  const words = (): string[] => ['--no-defaults', `--socket=${join(dir, 'a socket')}`, '-BN'];
  function sql(text: string): string {
    const { status, stdout, stderr } = spawnSync('mariadb', [...words(), '-e', text], { encoding: 'utf8' });
    return status === 0 ? stdout.trim() : stderr.trim();
  }
  /** In a session beside; how many milliseconds it took. */
  async function aside(text: string): Promise<number> {
    const started = performance.now();
    await once(spawn('mariadb', [...words(), '-e', text], { stdio: 'ignore' }), 'exit');
    return performance.now() - started;
  }
  const others = (): string[] =>
    sql("SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND user <> 'system user'")
      .split('\n')
      .filter((id) => /^\d+$/.test(id));
  async function killOthers(): Promise<void> {
    while (others().length > 0) {
      for (const id of others()) sql(`KILL ${id}`);
      await sleep(20);
    }
  }
  const mountOf = (path: string): string =>
    execFileSync('findmnt', ['-n', '-o', 'TARGET', '-T', path], { encoding: 'utf8' }).trim().split('\n').at(-1) ?? '/';
  const settings = (...lines: string[]): void => {
    writeFileSync(conf, [...foreign.map((path) => `IGNORE=${path}`), ...lines].join('\n'));
  };
  const start = (mountpoints = mountOf(dir), ...shell: string[]): ResidentHook => {
    return new ResidentHook([...shell, hook], { FSFREEZE_MARIADB_CONF: conf, FSFREEZE_MOUNTPOINTS: mountpoints });
  };
  async function held(...shell: string[]): Promise<ResidentHook> {
    const resident = start(mountOf(dir), ...shell);
    expect(await resident.ask('prepare')).toBe('ok');
    expect(await resident.ask('freeze')).toBe('ok');
    return resident;
  }

  async function startServer(): Promise<void> {
    const places = ['datadir=data', 'socket=a socket', 'pid-file=pid', 'log-error=log'].map((one) =>
      one.replace('=', `=${dir}/`),
    );
    const options = [
      ...places,
      'user=root',
      'log-bin=binlog',
      'innodb-buffer-pool-size=32M',
      'innodb-log-file-size=8M',
    ];
    server = spawn('mariadbd', ['--no-defaults', '--skip-networking', ...options.map((one) => `--${one}`)], {
      stdio: 'ignore',
    });
    for (let n = 0; sql('SELECT 1') !== '1'; n++) {
      if (n > 150)
        throw new Error(`the server does not start: ${readFileSync(join(dir, 'log'), 'utf8').slice(-1_000)}`);
      await sleep(100);
    }
  }
  async function killServer(): Promise<void> {
    if (server === undefined) return;
    const ended = once(server, 'exit');
    server.kill('SIGKILL');
    await ended;
    server = undefined;
  }

  beforeAll(async () => {
    foreign = serversOfThisMachine();
    dir = mkdtempSync(join(tmpdir(), 'fsb-mariadb-'));
    conf = join(dir, 'conf');
    const auth = ['--auth-root-authentication-method=socket', '--auth-root-socket-user=root'];
    execFileSync(
      'mariadb-install-db',
      ['--no-defaults', `--datadir=${dir}/data`, '--user=root', '--skip-test-db', ...auth],
      {
        stdio: 'ignore',
      },
    );
    await startServer();
    const tables = ['i (n int) ENGINE=InnoDB', 'm (n int) ENGINE=MyISAM', 'm2 (n int) ENGINE=MyISAM'];
    sql(`CREATE DATABASE t; ${tables.map((one) => `CREATE TABLE t.${one};`).join(' ')}`);
  }, 60_000);
  afterAll(async () => {
    await killServer();
    rmSync(dir, { recursive: true, force: true });
  });
  beforeEach(() => {
    settings();
  });
  afterEach(async () => {
    if (server === undefined) await startServer();
    await killOthers();
  });

  test.each([[[]], [['busybox', 'sh']], [['bash', '--posix']]])(
    'commits and writes wait, reads do not (shell: %j)',
    async (shell) => {
      const before = sql('SHOW MASTER STATUS');
      await using resident = await held(...shell);
      const waiting = [aside('INSERT INTO t.i VALUES (1)'), aside('INSERT INTO t.m VALUES (1)')];
      await sleep(700);
      expect(sql('SELECT COUNT(*) FROM t.i')).toMatch(/^\d+$/);
      expect(await resident.ask('verify')).toBe('ok');
      // Also that the hold wrote no GTID of its own.
      expect(sql('SHOW MASTER STATUS')).toBe(before);
      expect(resident.artefacts()['1.position']).toContain(`\ngtid_binlog_pos ${sql('SELECT @@gtid_binlog_pos')}\n`);
      expect(resident.artefacts()['1.position']).toContain(before.split('\t').slice(0, 2).join('\t'));
      expect(await resident.ask('thaw ok')).toBe('ok');
      for (const ms of waiting) expect(await ms).toBeGreaterThan(600);
    },
  );

  test('what was acknowledged is in the log, also with innodb_flush_log_at_trx_commit=0', async () => {
    const lsn = (name: string): number => Number(sql(`SHOW GLOBAL STATUS LIKE 'Innodb_lsn_${name}'`).split('\t')[1]);
    sql('SET GLOBAL innodb_flush_log_at_trx_commit = 0');
    try {
      sql('INSERT INTO t.i SELECT seq FROM seq_1_to_1000');
      const current = lsn('current');
      await using resident = await held();
      expect(lsn('flushed')).toBeGreaterThanOrEqual(current);
      expect(sql('SELECT @@GLOBAL.innodb_flush_log_at_trx_commit')).toBe('0');
      expect(await resident.ask('verify')).toBe('ok');
    } finally {
      sql('SET GLOBAL innodb_flush_log_at_trx_commit = 1');
    }
  });

  test('with its client it takes at most 3 MiB of its own', async () => {
    await using resident = await held();
    const dirtyKib = resident.dirtyKib();
    expect(dirtyKib).toHaveLength(2);
    expect(dirtyKib.reduce((a, b) => a + b)).toBeLessThan(3 * 1024);
  });

  test('through the agent: application; a session killed while frozen: not, and why', async () => {
    await using harness = new FreezeHarness();
    if (mountOf(dir) !== '/')
      harness.machine.mount({ ...harness.disks.root, mountpoint: mountOf(dir), source: '/dev/vda' });
    for (const name of ['50-mariadb', '.functions', '.mysql-sessions'])
      copyFileSync(join(hooks, name), join(harness.dir, 'shipped', name));
    const copy = join(harness.dir, 'shipped/50-mariadb');
    settings(`CLIENT=${execFileSync('sh', ['-c', 'command -v mariadb'], { encoding: 'utf8' }).trim()}`);
    writeFileSync(copy, readFileSync(hook, 'utf8').replaceAll('/etc/fsfreeze-bridge/mariadb.conf', conf));
    chmodSync(copy, 0o755);
    const coordinator = await harness.start();
    const freeze = () => coordinator.freeze({ requester: 'test', leaseMs: 5_000, require: 'auto' });

    const good = await freeze();
    const waiting = aside('INSERT INTO t.i VALUES (2)');
    await sleep(300);
    const report = await good.thaw();
    expect(report).toMatchObject({
      level: 'application',
      outcome: 'ok',
      writers: [{ verdict: 'verified', guarantee: 'held' }],
    });
    expect(await waiting).toBeGreaterThan(250);

    const bad = await freeze();
    await killOthers();
    const lost = await bad.thaw();
    expect(lost.level).toBe('filesystem');
    expect(lost.writers[0]?.reason).toMatch(/^verify: .*\/data: the server has ended the session \(ERROR 20/);
    expect(lost.outcome).not.toBe('unreleased');
  });

  test('the client killed, the server killed, the server started anew: verify says which', async () => {
    for (const [act, says] of [
      [(pid: number) => process.kill(pid, 'SIGKILL'), 'its client has ended'],
      [killServer, 'the server has ended (ERROR 20'],
      [
        async () => {
          await killServer();
          await startServer();
        },
        'the server has ended (ERROR 20',
      ],
    ] as const) {
      if (server === undefined) await startServer();
      await using resident = await held();
      await act(resident.clients[0] ?? 0);
      await sleep(50);
      expect(await resident.ask('verify')).toContain(`/data: ${says}`);
    }
  });

  test('killed alone it holds nothing', async () => {
    const resident = await held();
    await resident.kill();
    expect(await aside('INSERT INTO t.i VALUES (3); INSERT INTO t.m VALUES (3)')).toBeLessThan(2_000);
    rmSync(resident.scratch, { recursive: true });
  });

  test('a backup that runs: refused while one runs, and it waits while we hold', async () => {
    void aside('BACKUP STAGE START; SELECT SLEEP(20)');
    await expect.poll(() => others().length).toBe(1);
    await using refused = start();
    expect(await refused.ask('prepare')).toMatch(/^error .*ERROR 1205 .*Lock wait timeout exceeded.* \(.*\)$/);
    await killOthers();
    await using resident = await held();
    expect(sql('SET lock_wait_timeout = 1; BACKUP STAGE START')).toContain('ERROR 1205');
    expect(await resident.ask('verify')).toBe('ok');
  });

  test('a long write to a MyISAM table: given up after 3 s, with who it was, and others waited no longer', async () => {
    void aside('INSERT INTO t.m2 SELECT SLEEP(12)');
    await sleep(1_200);
    await using resident = start();
    expect(await resident.ask('prepare')).toBe('ok');
    const freezing = resident.ask('freeze');
    await sleep(200);
    const waited = [aside('INSERT INTO t.i VALUES (4)'), aside('INSERT INTO t.m VALUES (4)')];
    expect(await freezing).toMatch(/ERROR 1205 .* \(connection \d+ of root runs a statement for \d+ s: User sleep\)$/);
    for (const ms of waited) expect(await ms).toBeLessThan(4_000);
  });

  test('an open transaction and a long SELECT keep nobody waiting', async () => {
    for (const text of ['BEGIN; INSERT INTO t.i VALUES (5); SELECT SLEEP(20)', 'SELECT SLEEP(20) FROM t.m LIMIT 1'])
      void aside(text);
    await expect.poll(() => others().length).toBe(2);
    await using resident = await held();
    expect(await resident.ask('verify')).toBe('ok');
  });

  test('outside the set: not applicable; partly outside: refused, with what is outside', async () => {
    await using outside = start('/nowhere');
    expect(await outside.ask('prepare')).toBe('ended: 3');
    const other = mkdtempSync('/dev/shm/fsb-mariadb-');
    try {
      sql(`CREATE TABLE t.far (n int) ENGINE=InnoDB DATA DIRECTORY='${other}'`);
      await using partly = start();
      expect(await partly.ask('prepare')).toMatch(
        new RegExp(`^error .* is in the set that is cut, but ${other}/t/far\\.ibd \\(on /dev/shm\\) is not$`),
      );
      await using all = start(`${mountOf(dir)}\n/dev/shm`);
      expect(await all.ask('prepare')).toBe('ok');
    } finally {
      sql('DROP TABLE t.far');
      rmSync(other, { recursive: true });
    }
  });

  test('a password: from a file that nobody else can read', async () => {
    const file = join(dir, 'client.cnf');
    writeFileSync(
      file,
      '[client]\nuser=keeper\npassword=secret\n[mysql]\nxml\nhtml\nvertical\ntee=/dev/null\ndatabase=nowhere\n',
      { mode: 0o644 },
    );
    sql("CREATE USER keeper@localhost IDENTIFIED BY 'secret'; GRANT ALL ON *.* TO keeper@localhost");
    settings(`DEFAULTS_FILE=${file}`);
    await using open = start();
    expect(await open.ask('prepare')).toBe(`error ${conf}: ${file} holds a password and has mode 644, expected 600`);
    chmodSync(file, 0o600);
    const resident = await held();
    expect(sql("SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'keeper'")).toBe('1');
    await resident[Symbol.asyncDispose]();
    writeFileSync(file, '[client]\nuser=keeper\npassword=wrong\n');
    await using denied = start();
    expect(await denied.ask('prepare')).toMatch(/ERROR 1045 .* \(user and password: DEFAULTS_FILE=\/PATH in .*\)$/);
  });

  test('a server of somebody else: its folder has a client, which is not run, and it is not sent the password', async () => {
    const own = mkdtempSync(join(dir, 'own-'));
    mkdirSync(join(own, 'bin'));
    copyFileSync('/bin/sleep', join(own, 'bin/mariadbd'));
    writeFileSync(join(own, 'bin/mariadb'), `#!/bin/sh\ntouch ${own}/was-run\n`, { mode: 0o755 });
    const stranger = spawn(join(own, 'bin/mariadbd'), ['600'], { cwd: own });
    try {
      await sleep(100);
      await using resident = start();
      expect(await resident.ask('prepare')).toBe(
        `error ${own}: the server (pid ${stranger.pid}) listens on no unix socket, or starts or stops: it cannot be asked`,
      );
      expect(existsSync(join(own, 'was-run'))).toBe(false);
      settings(`IGNORE=${own}`);
      await using ignoring = start();
      expect(await ignoring.ask('prepare')).toBe('ok');
    } finally {
      stranger.kill('SIGKILL');
    }
  });

  test('a server in a container is named, with what passes over it', async () => {
    copyFileSync('/bin/sleep', join(dir, 'mariadbd'));
    const script = `cd '${dir}' && exec '${join(dir, 'mariadbd')}' 600`;
    const container = spawn('unshare', ['--pid', '--fork', '--kill-child', 'sh', '-c', script]);
    try {
      await sleep(300);
      await using resident = start();
      expect(await resident.ask('prepare')).toMatch(
        /^error .*: the server \(pid \d+\) runs in a container, .*: IGNORE=.* in .* passes over it$/,
      );
    } finally {
      container.kill('SIGKILL');
    }
  });
});
