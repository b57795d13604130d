// fsfreeze-hook.d/50-postgresql against a real server in a directory of its own. Its phases are run by hand with a made-up
// set: nothing is frozen. Whether a cut recovers is proved in a guest (test/vm).
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { requires } from '../support/requires.js';

const hook = join(import.meta.dirname, '../../fsfreeze-hook.d/50-postgresql');
const versions = existsSync('/usr/lib/postgresql') ? readdirSync('/usr/lib/postgresql').sort() : [];
const binaries = `/usr/lib/postgresql/${versions.at(-1) ?? 'none'}/bin`;

requires(
  'root',
  'runuser',
  'findmnt',
  binaries.replace('/usr/', '../') + '/postgres',
)('50-postgresql', () => {
  let dir: string;
  let scratch: string;
  let conf: string;
  /** Other clusters of this machine are none of ours. */
  let foreign: string[] = [];

  const asPostgres = (...words: string[]): string =>
    execFileSync('runuser', ['-u', 'postgres', '--', ...words], { encoding: 'utf8', cwd: '/' });
  const control = (...words: string[]): string =>
    asPostgres(join(binaries, 'pg_ctl'), '-D', join(dir, 'data'), '-l', join(dir, 'data/log'), '-w', '-s', ...words);
  const sql = (text: string): string =>
    asPostgres(join(binaries, 'psql'), '-h', join(dir, 'socket'), '-XAtq', '-d', 'postgres', '-c', text).trim();
  const config = (text: string): void => {
    appendFileSync(join(dir, 'data/postgresql.conf'), text);
  };
  const reload = (): void => {
    const before = sql('SELECT pg_conf_load_time()');
    sql('SELECT pg_reload_conf()');
    for (let n = 0; sql('SELECT pg_conf_load_time()') === before; n++) if (n > 50) throw new Error('no reload');
  };
  const mountOf = (path: string): string =>
    execFileSync('findmnt', ['-n', '-o', 'TARGET', '-T', path], { encoding: 'utf8' }).trim().split('\n').at(-1) ?? '/';

  const environment = (more: Readonly<Record<string, string>> = {}) => ({
    PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
    HOME: '/root',
    FSFREEZE_SCRATCH: scratch,
    FSFREEZE_POSTGRESQL_CONF: conf,
    ...more,
  });

  function run(phase: string, mountpoints = mountOf(dir), more = {}): { code: number | null; text: string } {
    const env = environment({ FSFREEZE_MOUNTPOINTS: mountpoints, ...more });
    const { status, stdout, stderr } = spawnSync(hook, [phase], { encoding: 'utf8', cwd: '/', env });
    return { code: status, text: (stderr + stdout).trim() };
  }

  async function runAside(phase: string): Promise<{ code: number | null; text: string }> {
    const child = spawn(hook, [phase], { cwd: '/', env: environment({ FSFREEZE_MOUNTPOINTS: mountOf(dir) }) });
    let text = '';
    child.stdout.on('data', (data: Buffer) => (text += data.toString()));
    child.stderr.on('data', (data: Buffer) => (text += data.toString()));
    const [code] = (await once(child, 'close')) as [number | null];
    return { code, text: text.trim() };
  }

  const ignoring = (paths: readonly string[]): void => {
    writeFileSync(conf, paths.map((path) => `IGNORE=${path}\n`).join(''));
  };

  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'fsb-postgresql-'));
    chmodSync(dir, 0o755);
    for (const name of ['data', 'wal', 'socket', 'space'])
      execFileSync('install', ['-d', '-o', 'postgres', '-m', '700', join(dir, name)]);
    asPostgres(join(binaries, 'initdb'), '-D', join(dir, 'data'), '-X', join(dir, 'wal/x'), '-A', 'peer', '-N');
    config(`unix_socket_directories = '${join(dir, 'socket')}'\nlisten_addresses = ''\ninclude_dir 'conf.d'\n`);
    execFileSync('install', ['-d', '-o', 'postgres', join(dir, 'data/conf.d')]);
    control('start');
    foreign = readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .flatMap((pid) => {
        const { stdout, status } = spawnSync('readlink', [`/proc/${pid}/cwd`], { encoding: 'utf8' });
        const cwd = stdout.trim();
        return status === 0 && cwd !== join(dir, 'data') && existsSync(join(cwd, 'postmaster.pid')) ? [cwd] : [];
      });
  });
  afterAll(() => {
    if (existsSync(join(dir, 'data/postmaster.pid'))) control('stop', '-m', 'immediate');
    rmSync(dir, { recursive: true, force: true });
  });
  beforeEach(() => {
    scratch = mkdtempSync(join(dir, 'scratch-'));
    conf = join(scratch, 'conf');
    ignoring(foreign);
  });
  afterEach(() => {
    if (!existsSync(join(dir, 'data/postmaster.pid'))) control('start');
  });

  test('all is well: prepared with a checkpoint, verified twice, nothing held', () => {
    const before = sql('SELECT checkpoint_lsn FROM pg_control_checkpoint()');
    sql('CREATE TABLE IF NOT EXISTS t (n int); INSERT INTO t VALUES (1)');
    expect(run('prepare')).toEqual({ code: 0, text: '' });
    expect(sql('SELECT checkpoint_lsn FROM pg_control_checkpoint()')).not.toBe(before);
    for (const phase of ['verify', 'verify']) expect(run(phase)).toEqual({ code: 0, text: '' });
    reload();
    expect(run('verify')).toEqual({ code: 0, text: '' });
  });

  describe('where volumes are cut one after another', () => {
    const postmaster = (): number => Number(readFileSync(join(dir, 'data/postmaster.pid'), 'utf8').split('\n')[0]);
    /** Of the postmaster, then of its children: pid and state. */
    const states = (): readonly (readonly [number, string])[] =>
      readdirSync('/proc')
        .filter((name) => /^\d+$/.test(name))
        .flatMap((name) => {
          const { stdout } = spawnSync('cat', [`/proc/${name}/stat`], { encoding: 'utf8' });
          const [state = '', parent] = stdout.replace(/.*\) /s, '').split(' ');
          const isOurs = Number(name) === postmaster() || Number(parent) === postmaster();
          return isOurs ? [[Number(name), state] as const] : [];
        });
    const distinct = (): string => [...new Set(states().map(([, state]) => state))].join('');
    afterEach(() => {
      run('thaw');
    });

    test('no process of the server goes on until thaw, which may come twice', async () => {
      sql('CREATE TABLE IF NOT EXISTS t (n int)');
      const asking = spawn(
        'runuser',
        ['-u', 'postgres', '--', join(binaries, 'psql'), '-h', join(dir, 'socket'), '-Xq', '-d', 'postgres'],
        { cwd: '/' },
      );
      asking.stdin.write('SELECT 1;\n');
      await once(asking.stdout, 'data');
      expect(run('prepare')).toEqual({ code: 0, text: '' });
      expect(run('verify')).toEqual({ code: 0, text: '' });
      expect(run('freeze')).toEqual({ code: 0, text: '' });
      expect(states().length).toBeGreaterThan(4);
      expect(distinct()).toBe('T');
      asking.stdin.end('INSERT INTO t VALUES (7);\n');
      expect(run('verify')).toEqual({ code: 0, text: '' });
      for (const phase of ['thaw', 'thaw']) expect(run(phase)).toEqual({ code: 0, text: '' });
      await once(asking, 'close');
      expect(sql('SELECT count(*) FROM t WHERE n = 7')).toBe('1');
      expect(distinct()).toMatch(/^[RS]+$/);
    });

    test('sessions that come and go meanwhile are no failure', async () => {
      const over = new AbortController();
      const coming = (async () => {
        while (!over.signal.aborted) {
          const child = spawn(
            'runuser',
            [
              '-u',
              'postgres',
              '--',
              join(binaries, 'psql'),
              '-h',
              join(dir, 'socket'),
              '-Xq',
              '-d',
              'postgres',
              '-c',
              'SELECT 1',
            ],
            { cwd: '/', stdio: 'ignore' },
          );
          await Promise.race([once(child, 'close'), new Promise((resolve) => setTimeout(resolve, 20))]);
        }
      })();
      try {
        for (let n = 0; n < 4; n++)
          for (const phase of ['prepare', 'verify', 'freeze', 'verify', 'verify', 'thaw'])
            expect(await runAside(phase), phase).toEqual({ code: 0, text: '' });
      } finally {
        over.abort();
        await coming;
      }
    });

    test('whoever waits for the postmaster, and stops with it, goes on with it', async () => {
      control('stop', '-m', 'fast');
      const words = ['-u', 'postgres', '--', join(binaries, 'postgres'), '-D', join(dir, 'data')];
      const waiting = spawn('runuser', words, { cwd: '/', stdio: 'ignore' });
      const state = (): string => /\) (.)/.exec(readFileSync(`/proc/${waiting.pid ?? 0}/stat`, 'utf8'))?.[1] ?? '';
      try {
        while (
          spawnSync('runuser', ['-u', 'postgres', '--', join(binaries, 'pg_isready'), '-qh', join(dir, 'socket')])
            .status !== 0
        );
        for (const phase of ['prepare', 'freeze', 'verify']) expect(run(phase)).toEqual({ code: 0, text: '' });
        await expect.poll(state).toBe('T');
        expect(run('thaw')).toEqual({ code: 0, text: '' });
        await expect.poll(state).toBe('S');
      } finally {
        control('stop', '-m', 'fast');
        await once(waiting, 'close');
        control('start');
      }
    });

    test('a server that has stopped since prepare is passed over, and one that was started since is told', () => {
      expect(run('prepare').code).toBe(0);
      control('stop', '-m', 'fast');
      expect(run('freeze').code).toBe(3);
      control('start');
      expect(run('prepare').code).toBe(0);
      expect(run('freeze').code).toBe(0);
      // A postmaster by its name, which was not there.
      const other = join(dir, 'postgres');
      copyFileSync('/bin/sleep', other);
      chmodSync(other, 0o755);
      const newcomer = spawn(other, ['100'], { stdio: 'ignore' });
      try {
        while (readFileSync(`/proc/${newcomer.pid ?? 0}/comm`, 'utf8') !== 'postgres\n');
        expect(run('verify').text).toBe(`PostgreSQL (pid ${newcomer.pid ?? 0}) was started since prepare`);
      } finally {
        newcomer.kill();
      }
    });

    test('one that somebody lets go on is told, and one that somebody stopped before is left to that one', () => {
      const [, other = 0] = states()
        .map(([pid]) => pid)
        .filter((pid) => pid !== postmaster());
      process.kill(other, 'SIGSTOP');
      try {
        expect(run('prepare').code).toBe(0);
        expect(run('freeze')).toEqual({ code: 0, text: '' });
        process.kill(postmaster(), 'SIGCONT');
        expect(run('verify')).toEqual({
          code: 1,
          text: expect.stringMatching(/is not stopped any more: state [SR]$/) as string,
        });
        expect(run('thaw').code).toBe(0);
        expect(states().filter(([, state]) => state === 'T')).toEqual([[other, 'T']]);
      } finally {
        process.kill(other, 'SIGCONT');
      }
    });
  });

  test.each([
    ['fsync = off', 'fsync'],
    ['full_page_writes = no', 'full_page_writes'],
    ["synchronous_commit = 'false'", 'synchronous_commit'],
  ])('%s: refused while it is on the way, when it is in force, and when it comes after prepare', (line, name) => {
    const file = join(dir, 'data/conf.d/x.conf');
    expect(run('prepare').code).toBe(0);
    writeFileSync(file, `${line}\n`);
    try {
      expect(run('verify').text).toContain('its configuration was touched since prepare');
      expect(run('prepare').text).toMatch(new RegExp(`${name} will be .* at the next reload`));
      reload();
      const now = run('prepare');
      expect(now.code).toBe(1);
      expect(now.text).toContain(`${name} is off`);
    } finally {
      rmSync(file);
      reload();
    }
    expect(run('prepare').code).toBe(0);
  });

  test.each([
    ['ALTER ROLE app SET synchronous_commit = off', 'ALTER ROLE app RESET ALL', 'role app'],
    [
      "ALTER DATABASE template1 SET synchronous_commit = 'no'",
      'ALTER DATABASE template1 RESET ALL',
      'database template1',
    ],
    [
      'ALTER ROLE app IN DATABASE template1 SET synchronous_commit = 0',
      'ALTER ROLE app IN DATABASE template1 RESET ALL',
      'role app in database template1',
    ],
  ])('%s: refused', (set, reset, where) => {
    sql('CREATE ROLE app');
    try {
      sql(set);
      const { code, text } = run('prepare');
      expect(code).toBe(1);
      expect(text).toContain(`is set for ${where}`);
      sql(reset);
      sql('ALTER ROLE app SET synchronous_commit = local');
      expect(run('prepare')).toEqual({ code: 0, text: '' });
    } finally {
      sql(reset);
      sql('DROP ROLE app');
    }
  });

  test('a setting of the role that asks hides what the server does for others: refused', () => {
    sql('ALTER ROLE postgres SET synchronous_commit = on');
    try {
      const { code, text } = run('prepare');
      expect(code).toBe(1);
      expect(text).toContain('synchronous_commit is on for the role or database that asks alone');
    } finally {
      sql('ALTER ROLE postgres RESET ALL');
    }
  });

  test('a configuration file that was not there in prepare, or is not now, is seen', () => {
    expect(run('prepare').code).toBe(0);
    const kept = join(scratch, readdirSync(scratch).find((name) => /^\d+\.\d+$/.test(name)) ?? '', 'config.then');
    const lines = readFileSync(kept, 'utf8');
    writeFileSync(kept, lines.split('\n').slice(1).join('\n'));
    expect(run('verify').text).toContain('its configuration was touched since prepare');
    writeFileSync(kept, lines.split('\n').slice(0, -2).join('\n') + '\n');
    expect(run('verify').text).toContain('its configuration was touched since prepare (was: nothing');
    writeFileSync(kept, `${lines}one more\n`);
    expect(run('verify').text).toContain('is: nothing');
    writeFileSync(kept, lines);
    expect(run('verify')).toEqual({ code: 0, text: '' });
  });

  test('ALTER SYSTEM after prepare is seen', () => {
    expect(run('prepare').code).toBe(0);
    sql('ALTER SYSTEM SET fsync = off');
    try {
      expect(run('verify').code).toBe(1);
    } finally {
      sql('ALTER SYSTEM RESET fsync');
    }
  });

  test('a tablespace outside the set fails, and so does one made after prepare', () => {
    const outside = mkdtempSync('/dev/shm/fsb-space-');
    execFileSync('chown', ['postgres', outside]);
    try {
      sql(`CREATE TABLESPACE outside LOCATION '${outside}'`);
      const { code, text } = run('prepare');
      expect(code).toBe(1);
      expect(text).toContain(`${outside} (on /dev/shm) is not in the set that is cut`);
      expect(run('prepare', `${mountOf(dir)}\n/dev/shm`).code).toBe(0);
      sql('DROP TABLESPACE outside');
      expect(run('verify').code).toBe(1);
    } finally {
      rmSync(outside, { recursive: true, force: true });
    }
    expect(run('prepare').code).toBe(0);
    sql(`CREATE TABLESPACE later LOCATION '${join(dir, 'space')}'`);
    expect(run('verify').text).toContain('its tablespaces are others than in prepare');
    expect(run('prepare').code).toBe(0);
    expect(run('verify').code).toBe(0);
    sql('DROP TABLESPACE later');
  });

  test('wholly outside the set: not applicable', () => {
    expect(run('prepare', '/nowhere')).toEqual({
      code: 3,
      text: 'no running cluster lies on the filesystems of the set',
    });
  });

  test('a server restarted or stopped since prepare is not the one that was asked', () => {
    expect(run('prepare').code).toBe(0);
    control('restart', '-m', 'fast');
    const { code, text } = run('verify');
    expect(code).toBe(1);
    expect(text).toMatch(/the server was started anew since prepare \(pid \d+, was \d+\)/);
    expect(run('prepare').code).toBe(0);
    control('stop', '-m', 'immediate');
    expect(run('verify')).toEqual({ code: 3, text: 'PostgreSQL has stopped since prepare' });
  });

  test('a server that has not told its socket yet is waited for', async () => {
    const path = join(dir, 'data/postmaster.pid');
    const told = readFileSync(path, 'utf8');
    // As a starting server has it until it listens: five lines, the last of them empty. It looks at the first alone.
    writeFileSync(path, `${told.split('\n').slice(0, 4).join('\n')}\n\n`);
    const preparing = runAside('prepare');
    await new Promise((resolve) => setTimeout(resolve, 500));
    writeFileSync(path, told);
    expect(await preparing).toEqual({ code: 0, text: '' });
  });

  test.each(['stop', 'restart'])(
    'a server that %ss while it is asked is never a failure: it is passed over, or asked again when it is back',
    async (act) => {
      for (const delayMs of [0, 30, 60, 100, 150, 250]) {
        if (!existsSync(join(dir, 'data/postmaster.pid'))) control('start');
        const words = ['-D', join(dir, 'data'), '-l', join(dir, 'data/log'), '-w', '-s', '-m', 'fast', act];
        const preparing = runAside('prepare');
        await new Promise((resolve) => setTimeout(resolve, delayMs));
        const acting = spawn('runuser', ['-u', 'postgres', '--', join(binaries, 'pg_ctl'), ...words], { cwd: '/' });
        const acted = once(acting, 'close');
        const { code, text } = await preparing;
        expect([code, text]).toEqual([code === 3 ? 3 : 0, code === 3 ? 'PostgreSQL does not run here' : text]);
        await acted;
        const verified = run('verify');
        // Stopped after it was asked: passed over; back as another server: not the one that was asked.
        if (code === 0) expect(verified.code === 0 ? '' : verified.text).toMatch(/^$|has stopped|started anew/);
        if (act === 'stop' && code === 0) expect(verified.code).not.toBe(1);
      }
    },
  );

  test('one that is back after it was passed over is not vouched for by the others', () => {
    expect(run('prepare').code).toBe(0);
    // As prepare notes it.
    writeFileSync(join(scratch, 'stopped'), `${join(dir, 'data')}\n`);
    expect(run('verify').text).toContain('the server was started anew since prepare');
  });

  test('a postmaster in a container fails with what passes over it, and beside it the others are asked all the same', async () => {
    mkdirSync(join(dir, 'inside'), { recursive: true });
    copyFileSync('/bin/sleep', join(dir, 'postgres'));
    const lines = '1\n/var/lib/postgresql/data\n1700000000\n5432\n/var/run/postgresql\n*\n';
    writeFileSync(join(dir, 'inside/postmaster.pid'), lines);
    const script = `cd '${join(dir, 'inside')}' && exec '${join(dir, 'postgres')}' 600`;
    const container = spawn('unshare', ['--pid', '--fork', '--kill-child', 'sh', '-c', script]);
    try {
      await expect.poll(() => run('prepare').code, { timeout: 5_000 }).toBe(1);
      const { text } = run('prepare');
      expect(text).toMatch(/^PostgreSQL \(pid \d+\) runs in a container, .*IGNORE=.*inside in .* passes over it$/);
      ignoring([...foreign, join(dir, 'inside')]);
      expect(run('prepare')).toEqual({ code: 0, text: '' });
    } finally {
      container.kill('SIGKILL');
    }
  });

  test('`local all all scram`: it asks for no password, and names what lets it ask', () => {
    const file = join(dir, 'data/pg_hba.conf');
    const before = readFileSync(file, 'utf8');
    writeFileSync(file, 'local all all scram-sha-256\n');
    try {
      control('restart', '-m', 'fast');
      const { code, text } = run('prepare');
      expect(code).toBe(1);
      expect(text).toMatch(
        /no password supplied \(this writer has none: a line `local all postgres peer` first in pg_hba/,
      );
    } finally {
      writeFileSync(file, before);
      control('restart', '-m', 'fast');
    }
  });

  test('a server without a unix socket cannot be asked: it says so', () => {
    const file = join(dir, 'data/conf.d/socket.conf');
    writeFileSync(file, "unix_socket_directories = ''\nlisten_addresses = '127.0.0.1'\nport = 54329\n");
    try {
      control('restart', '-m', 'fast');
      const { code, text } = run('prepare');
      expect(code).toBe(1);
      expect(text).toContain('the server has no unix socket (unix_socket_directories), it cannot be asked');
    } finally {
      rmSync(file);
      control('restart', '-m', 'fast');
    }
  });

  test('a CHECKPOINT that is not done in the time there is ends early, and is no failure', () => {
    const pid = Number(sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"));
    sql('CREATE TABLE IF NOT EXISTS t (n int); INSERT INTO t VALUES (2)');
    process.kill(pid, 'SIGSTOP');
    try {
      const started = performance.now();
      const { code, text } = run('prepare', mountOf(dir), { FSFREEZE_LIMIT_MS: '3000' });
      expect(performance.now() - started).toBeLessThan(3_000);
      expect(code).toBe(0);
      expect(text).toMatch(/no CHECKPOINT in the time there is, .*statement timeout$/);
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    expect(run('verify')).toEqual({ code: 0, text: '' });
  });

  test('mount points that are too many for a variable are looked up in the file', () => {
    const many = Array.from({ length: 20_000 }, (_, n) => `/jails/${n}/usr/share`);
    const file = join(scratch, 'list');
    const env = environment({ FSFREEZE_MOUNTPOINTS_FILE: file });
    const prepare = (): number | null => spawnSync(hook, ['prepare'], { cwd: '/', env }).status;
    writeFileSync(file, [...many, mountOf(dir), ''].join('\n'));
    expect(prepare()).toBe(0);
    writeFileSync(file, [...many, ''].join('\n'));
    expect(prepare()).toBe(3);
  });

  test('a server that cannot be asked fails with the reason', () => {
    appendFileSync(conf, 'DBUSER=nobody\n');
    const { code, text } = run('prepare');
    expect(code).toBe(1);
    expect(text).toMatch(/psql: .*authentication failed for user "nobody"/);
    writeFileSync(conf, 'USER=nobody\n');
    expect(run('prepare').text).toContain('expected DBUSER=NAME or IGNORE=DATADIR, found: USER=nobody');
  });

  test('not running, or to be ignored: not applicable, and nothing to verify', () => {
    ignoring([...foreign, join(dir, 'data')]);
    expect(run('prepare')).toEqual({ code: 3, text: 'PostgreSQL does not run here' });
    expect(run('verify').text).toBe('prepare left nothing to verify');
    ignoring(foreign);
    control('stop', '-m', 'fast');
    expect(run('prepare').code).toBe(3);
  });

  test('it takes any other phase for unsupported', () => {
    mkdirSync(join(scratch, 'x'));
    for (const phase of ['abort', 'post', 'complete']) expect(run(phase).code).toBe(2);
  });
});
