// fsfreeze-hook.d/50-mysql against what a real MySQL 9.7 answered: test/fixtures/mysql/*.9.7, recorded by `client-records`
// beside them and played by `client-plays`. The server is a program that only listens; every statement must be as recorded.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { requires } from '../support/requires.js';
import { ResidentHook } from '../support/resident-hook.js';
import { serversOfThisMachine } from '../support/database-servers.js';

const hook = join(import.meta.dirname, '../../fsfreeze-hook.d/50-mysql');
const fixtures = join(import.meta.dirname, '../fixtures/mysql');

requires(
  'root',
  'findmnt',
  'gcc',
)('50-mysql', () => {
  let dir: string;
  let data: string;
  let conf: string;
  let server: ChildProcess;
  let foreign: string[];

  beforeAll(async () => {
    foreign = serversOfThisMachine();
    dir = mkdtempSync(join(tmpdir(), 'fsb mysql-'));
    data = join(dir, 'data');
    conf = join(dir, 'conf');
    mkdirSync(data);
    execFileSync('gcc', ['-Wall', '-Werror', '-o', join(dir, 'mysqld'), join(fixtures, 'listener.c')]);
    copyFileSync(join(fixtures, 'client-plays'), join(dir, 'client'));
    server = spawn(
      join(dir, 'mysqld'),
      ['mysqlx.sock', 'mysqld.sock'].map((name) => join(dir, name)),
      {
        cwd: data,
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    if (server.stdout !== null) await once(server.stdout, 'data');
  });
  afterAll(() => {
    server.kill('SIGKILL');
    rmSync(dir, { recursive: true, force: true });
  });
  beforeEach(() => {
    writeFileSync(conf, [`CLIENT=${dir}/client`, ...foreign.map((path) => `IGNORE=${path}`)].join('\n'));
  });

  const mountOf = (path: string): string =>
    execFileSync('findmnt', ['-n', '-o', 'TARGET', '-T', path], { encoding: 'utf8' }).trim().split('\n').at(-1) ?? '/';
  function play(name: string, mountpoints = mountOf(dir)): ResidentHook {
    const text = readFileSync(join(fixtures, name), 'utf8').replaceAll('/data/d', data);
    writeFileSync(join(dir, 'played'), text);
    return new ResidentHook([hook], { FSFREEZE_MYSQL_CONF: conf, FSFREEZE_MOUNTPOINTS: mountpoints });
  }
  async function answers(resident: ResidentHook, ...questions: string[]): Promise<string[]> {
    const all: string[] = [];
    for (const question of questions) all.push(await resident.ask(question));
    return all;
  }

  test.each(['held.9.7', 'tables.9.7'])('%s: held and proved, with the position', async (name) => {
    await using resident = play(name);
    const phases = ['prepare', 'freeze', 'verify', 'verify', 'thaw ok'];
    expect(await answers(resident, ...phases)).toEqual(phases.map(() => 'ok'));
    expect(resident.artefacts()['1.position']).toMatch(
      /^datadir .*\/data\nversion 9\.7\..*\nserver_uuid [\da-f-]{36}\nlog_status \{.*"gtid_executed": ".*"LSN": \d+/,
    );
  });

  test('only tables without transactions are locked, and none where there are none', () => {
    expect(readFileSync(join(fixtures, 'tables.9.7'), 'utf8')).toContain(
      '> LOCK TABLES `t`.`a``b` WRITE,`t`.`m` WRITE; FLUSH LOCAL TABLES;',
    );
    expect(readFileSync(join(fixtures, 'held.9.7'), 'utf8')).not.toContain('FLUSH');
  });

  test.each([
    ['long-select.9.7', 'freeze', /: ERROR 1205 .* \(connection \d+ of root runs a statement for \d+ s: User sleep\)$/],
    ['flush-0.9.7', 'freeze', /: innodb_flush_log_at_trx_commit is 0: .* \(with 2 it does\)$/],
    ['redo-off.9.7', 'freeze', /: the redo log is off \(ALTER INSTANCE ENABLE INNODB REDO_LOG\)/],
    ['killed.9.7', 'verify', /: the server has ended the session \(ERROR 2013 /],
    ['denied.9.7', 'prepare', /: ERROR 1045 .* \(user and password: DEFAULTS_FILE=\/PATH in .*\)$/],
  ])('%s: an error of %s, with the reason', async (name, phase, reason) => {
    const before = { prepare: [], freeze: ['prepare'], verify: ['prepare', 'freeze', 'verify'] }[phase] ?? [];
    await using resident = play(name);
    expect(await answers(resident, ...before)).toEqual(before.map(() => 'ok'));
    expect(await resident.ask(phase)).toMatch(new RegExp(`^error ${data}${reason.source}`));
  });

  test('a session that is another one proves nothing', async () => {
    await using resident = play('held.9.7');
    expect(await answers(resident, 'prepare', 'freeze')).toEqual(['ok', 'ok']);
    writeFileSync(join(resident.scratch, '1.session'), '1\n');
    expect(await resident.ask('verify')).toMatch(/: another session answers \(\d+, was 1\)$/);
  });

  test('outside the set: not applicable', async () => {
    await using resident = play('held.9.7', '/nowhere');
    expect(await resident.ask('prepare')).toBe('ended: 3');
  });

  test('a server of somebody else gets to see nothing of root: no option file, no home', async () => {
    const own = join(dir, 'own');
    mkdirSync(own, { mode: 0o777 });
    chmodSync(own, 0o777);
    chmodSync(dir, 0o755);
    const stranger = spawn(join(dir, 'mysqld'), [join(own, 'a socket')], { cwd: own, uid: 65_534, stdio: ['ignore', 'pipe', 'inherit'] }); // prettier-ignore
    try {
      await once(stranger.stdout, 'data');
      const client = join(dir, 'tells');
      writeFileSync(client, `#!/bin/sh\nprintf '%s\\n' "$HOME" "$@" >'${dir}/told'\n`, { mode: 0o755 });
      writeFileSync(
        conf,
        [`CLIENT=${client}`, ...foreign, data].map((one) => one.replace(/^\//, 'IGNORE=/')).join('\n'),
      );
      await using resident = new ResidentHook([hook], {
        FSFREEZE_MYSQL_CONF: conf,
        FSFREEZE_MOUNTPOINTS: mountOf(dir),
      });
      expect(await resident.ask('prepare')).toMatch(new RegExp(`^error ${own}: its client has ended`));
      const [home, first, socket] = readFileSync(join(dir, 'told'), 'utf8').split('\n');
      expect([home, first]).toEqual(['/nonexistent', '--no-defaults']);
      expect(socket).toBe(`--socket=/proc/${stranger.pid}/root${own}/a socket`);
    } finally {
      stranger.kill('SIGKILL');
    }
  });

  test('a MariaDB older than its own writer knows, under the name of MySQL', async () => {
    await using resident = play('held.9.7');
    writeFileSync(join(dir, 'played'), readFileSync(join(dir, 'played'), 'utf8').replace('9.7.4-2', '10.4.1-MariaDB'));
    expect(await resident.ask('prepare')).toContain('expected MySQL 8.0 or later, found 10.4.1-MariaDB');
  });
});
