// fsfreeze-hook.d/50-redis against real servers in a directory of their own: asked by hand, and by a coordinator whose
// freezer is a fake one. Nothing is frozen. The server is `redis-check-rdb` under its other name.
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'; // prettier-ignore
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeScript } from '../../src/freeze/writers/description.js';
import { serversOfThisMachine } from '../support/database-servers.js';
import { FreezeHarness } from '../support/freeze-harness.js';
import { requires } from '../support/requires.js';
import { ResidentHook } from '../support/resident-hook.js';

const hooks = join(import.meta.dirname, '../../fsfreeze-hook.d');
const hook = join(hooks, '50-redis');
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const isThere = (pid: number): boolean => existsSync(`/proc/${pid}/exe`);

requires(
  'root',
  'findmnt',
  'redis-check-rdb',
  'redis-cli',
)('50-redis', () => {
  let dir: string;
  let conf: string;
  /** Other servers of this machine are none of ours. */
  let foreign: string[] = [];
  const servers = new Map<string, ChildProcess>();

  const words = (name: string): string[] => ['-s', join(dir, name, 'socket')];
  const ask = (text: string, name = 'one'): string => {
    const { stdout, stderr } = spawnSync('redis-cli', words(name), { input: `${text}\n`, encoding: 'utf8' });
    return (stdout + stderr).trim();
  };
  /** By a client beside; how many milliseconds it took. */
  async function aside(text: string, name = 'one'): Promise<number> {
    const started = performance.now();
    await once(spawn('redis-cli', [...words(name), ...text.split(' ')], { stdio: 'ignore' }), 'exit');
    return performance.now() - started;
  }
  const info = (field: string, name = 'one'): string =>
    new RegExp(`^${field}:(.*?)\\r?$`, 'm').exec(ask('INFO', name))?.[1] ?? '';
  const mountOf = (path: string): string =>
    execFileSync('findmnt', ['-n', '-o', 'TARGET', '-T', path], { encoding: 'utf8' }).trim().split('\n').at(-1) ?? '/';
  const settings = (...lines: string[]): void => {
    writeFileSync(conf, [...foreign.map((path) => `IGNORE=${path}`), ...lines].join('\n'));
  };
  const start = (mountpoints = mountOf(dir), ...shell: string[]): ResidentHook =>
    new ResidentHook([...shell, hook], { FSFREEZE_REDIS_CONF: conf, FSFREEZE_MOUNTPOINTS: mountpoints });
  /** That of a server alone, whatever else runs. */
  const startAt = (name: string): ResidentHook => {
    const own = join(dir, `conf.${name}`);
    const others = [...servers.keys()].filter((one) => one !== name).map((one) => join(dir, one));
    writeFileSync(own, [...foreign, ...others].map((path) => `IGNORE=${path}`).join('\n'));
    return new ResidentHook([hook], { FSFREEZE_REDIS_CONF: own, FSFREEZE_MOUNTPOINTS: mountOf(dir) });
  };
  async function held(...shell: string[]): Promise<ResidentHook> {
    const resident = start(mountOf(dir), ...shell);
    expect(await resident.ask('prepare')).toBe('ok');
    expect(await resident.ask('freeze')).toBe('ok');
    return resident;
  }

  async function startServer(name: string, ...options: string[]): Promise<void> {
    mkdirSync(join(dir, name), { recursive: true });
    const all = ['--port', '0', '--unixsocket', join(dir, name, 'socket'), '--dir', join(dir, name), ...options];
    servers.set(name, spawn(join(dir, 'redis-server'), all, { stdio: 'ignore' }));
    for (let n = 0; ask('PING', name) !== 'PONG' && !ask('PING', name).includes('NOAUTH'); n++) {
      if (n > 150) throw new Error(`the server does not start: ${ask('PING', name)}`);
      await sleep(50);
    }
  }
  async function killServer(name: string): Promise<void> {
    const server = servers.get(name);
    if (server === undefined) return;
    const ended = once(server, 'exit');
    server.kill('SIGKILL');
    await ended;
    servers.delete(name);
  }

  beforeAll(() => {
    foreign = serversOfThisMachine(['redis-server', 'valkey-server']);
    dir = mkdtempSync(join(tmpdir(), 'fsb redis-'));
    conf = join(dir, 'conf');
    symlinkSync(
      execFileSync('sh', ['-c', 'command -v redis-check-rdb'], { encoding: 'utf8' }).trim(),
      join(dir, 'redis-server'),
    );
  });
  afterAll(async () => {
    await killServer('one');
    rmSync(dir, { recursive: true, force: true });
  });
  /** The tests share it; one that leaves it other than it was ends with `killServer('one')`. */
  beforeEach(async () => {
    settings();
    if (!servers.has('one')) await startServer('one', '--save', '3600 1', '--appendonly', 'no');
    ask('FLUSHALL');
  });
  afterEach(async () => {
    for (const name of [...servers.keys()].filter((one) => one !== 'one')) {
      await killServer(name);
      rmSync(join(dir, name), { recursive: true });
    }
  });

  test.each([[[]], [['busybox', 'sh']], [['bash', '--posix']]])(
    'writes wait until thaw, reads do not (shell: %j)',
    async (shell) => {
      ask('SET a 1');
      await using resident = await held(...shell);
      // All that was acknowledged is in the snapshot.
      expect(info('rdb_changes_since_last_save')).toBe('0');
      const waiting = aside('SET a 2');
      await sleep(shell.length > 0 ? 500 : 3_500); // more than one pause lasts
      expect(ask('GET a')).toBe('1');
      expect(await resident.ask('verify')).toBe('ok');
      expect(await resident.ask('thaw ok')).toBe('ok');
      expect(await waiting).toBeGreaterThan(shell.length > 0 ? 400 : 3_400);
      expect(await aside('SET a 3')).toBeLessThan(1_000);
      expect(ask('KEYS *')).toBe('a');
    },
    20_000,
  );

  test('the same with an AOF: its buffer is written, and our own write leaves no trace', async () => {
    ask('CONFIG SET appendonly yes');
    await expect.poll(() => info('aof_rewrite_in_progress')).toBe('0');
    ask('SET a 1');
    await using resident = await held();
    expect(info('aof_buffer_length')).toBe('0');
    const size = info('aof_current_size');
    expect(await resident.ask('verify')).toBe('ok');
    expect(await resident.ask('thaw ok')).toBe('ok');
    expect(info('aof_current_size')).toBe(size);
    ask('CONFIG SET appendonly no');
  });

  test('with its clients and the keeper of the pause it takes at most 3 MiB of its own', async () => {
    await using resident = await held();
    const dirtyKib = resident.dirtyKib();
    expect(dirtyKib).toHaveLength(4); // without the keeper's `timeout` and `cat`, 0.2 MiB
    expect(dirtyKib.reduce((a, b) => a + b)).toBeLessThan(3 * 1024);
  });

  test('through the agent: application; a pause that somebody ended while frozen: not, and why', async () => {
    await using harness = new FreezeHarness();
    if (mountOf(dir) !== '/')
      harness.machine.mount({ ...harness.disks.root, mountpoint: mountOf(dir), source: '/dev/vda' });
    for (const name of ['.functions', '.one-by-one'])
      copyFileSync(join(hooks, name), join(harness.dir, 'shipped', name));
    settings(`CLIENT=${execFileSync('sh', ['-c', 'command -v redis-cli'], { encoding: 'utf8' }).trim()}`);
    const copy = join(harness.dir, 'shipped/50-redis');
    writeFileSync(copy, readFileSync(hook, 'utf8').replaceAll('/etc/fsfreeze-bridge/redis.conf', conf));
    chmodSync(copy, 0o755);
    const coordinator = await harness.start();
    const freeze = () => coordinator.freeze({ requester: 'test', leaseMs: 5_000, require: 'auto' });

    const good = await freeze();
    const waiting = aside('SET b 1');
    await sleep(300);
    expect(await good.thaw()).toMatchObject({
      level: 'application',
      outcome: 'ok',
      writers: [{ verdict: 'verified', guarantee: 'held' }],
    });
    expect(await waiting).toBeGreaterThan(250);

    const bad = await freeze();
    ask('CLIENT UNPAUSE');
    const lost = await bad.thaw();
    expect(lost.level).toBe('filesystem');
    expect(lost.writers[0]?.reason).toMatch(/^verify: .*\/one: writes do not wait any more: somebody ended the pause/);
    expect(lost.outcome).not.toBe('unreleased');
    expect(await aside('SET b 2')).toBeLessThan(1_000);
  }, 20_000);

  test('the server killed, started anew, our connections closed: verify says which', async () => {
    for (const [act, says] of [
      [() => killServer('one'), /the server has ended \(/],
      [
        async () => {
          await killServer('one');
          await startServer('one', '--save', '3600 1');
        },
        /the server (was started anew|has ended)/,
      ],
      [
        () => ask('CLIENT KILL TYPE normal'),
        /the (connection whose write waited is gone|server has closed the connection)/,
      ],
    ] as const) {
      if (!servers.has('one')) await startServer('one', '--save', '3600 1');
      await using resident = await held();
      await act();
      expect(await resident.ask('verify')).toMatch(new RegExp(`/one: ${says.source}`));
    }
  }, 20_000);

  test('an interruption of the pause that is over: seen, since our own write did not wait through it', async () => {
    await using resident = await held();
    ask('CLIENT UNPAUSE');
    await sleep(1_500);
    const waiting = aside('SET a 4'); // the keeper has paused again
    await sleep(200);
    expect(await resident.ask('verify')).toContain('somebody ended the pause');
    expect(await waiting).toBeLessThan(3_000);
  });

  test('killed alone it lets go at once; with all its processes, within 3 s, as it declares', async () => {
    expect(describeScript(readFileSync(hook, 'utf8'))).toMatchObject({ description: { lingers: 3 } });
    const alone = await held();
    await alone.kill();
    expect(await aside('SET a 5')).toBeLessThan(1_500);
    const all = await held();
    for (const pid of [...all.clients, all.pid]) process.kill(pid, 'SIGKILL');
    expect(await aside('SET a 6')).toBeLessThan(3_500);
    for (const { scratch } of [alone, all]) rmSync(scratch, { recursive: true });
  }, 20_000);

  test('after the end of its input nothing of it is left', async () => {
    const resident = await held();
    const { clients } = resident;
    await resident[Symbol.asyncDispose]();
    expect(await aside('SET a 7')).toBeLessThan(1_000);
    await expect.poll(() => clients.filter(isThere), { timeout: 2_000 }).toEqual([]);
  });

  test('a busy script, and a server that is stopped: named in prepare after 3 s', async () => {
    await startServer('two', '--save', '3600 1');
    const stuck = spawn('redis-cli', [...words('one'), 'EVAL', 'while true do end', '0'], { stdio: 'ignore' });
    servers.get('two')?.kill('SIGSTOP');
    await sleep(200);
    await using busy = startAt('one');
    await using stopped = startAt('two');
    const answers = [busy.ask('prepare'), stopped.ask('prepare')];
    expect(await answers[0]).toContain('/one: the server does not answer for 3 s');
    expect(await answers[1]).toContain('/two: the server does not answer for 3 s');
    stuck.kill();
    await killServer('one');
  }, 20_000);

  test('no connection is left: refused', async () => {
    const only = spawn('redis-cli', words('one'), { stdio: ['pipe', 'pipe', 'ignore'] });
    only.stdin.write('CONFIG SET maxclients 1\n');
    await once(only.stdout, 'data');
    await expect.poll(() => ask('PING')).toContain('max number of clients reached');
    await using resident = start();
    // The server closes after its error: a client that writes before it reads may not see that.
    expect(await resident.ask('prepare')).toMatch(/\/one: .*(max number of clients reached|closed the connection)/);
    only.kill();
    await killServer('one');
  });

  test.each([
    ['ECHO', /\/one: ERR unknown command .ECHO., /],
    ['CLIENT', /\/one: CLIENT ID: ERR unknown command .CLIENT., /],
    ['INFO', /\/one: ERR unknown command .INFO., /],
  ])('without the command %s: refused at once, with the error', async (command, says) => {
    await startServer('two', '--save', '3600 1', '--rename-command', command, '');
    await using resident = startAt('two');
    expect(await resident.ask('prepare')).toMatch(new RegExp(says.source.replace('one', 'two')));
  });

  test('a server that refuses every write: said what it answered to ours', async () => {
    await startServer('two', '--save', '3600 1', '--min-replicas-to-write', '1');
    await using resident = startAt('two');
    expect(await resident.ask('prepare')).toBe('ok');
    expect(await resident.ask('freeze')).toMatch(/a write does not wait, .*: NOREPLICAS /);
  });

  test('a save that fails: refused, and nothing is held', async () => {
    ask('SET a 8');
    rmSync(join(dir, 'one'), { recursive: true });
    mkdirSync(join(dir, 'one'));
    await using resident = start();
    expect(await resident.ask('prepare')).toMatch(/^error /);
    await killServer('one');
  });

  test('a replica is held with what its primary sends', async () => {
    const listens = ['--port', '17911', '--bind', '127.0.0.1'];
    await startServer('one of two', '--save', '', ...listens, '--repl-diskless-sync-delay', '0');
    await startServer('two', '--appendonly', 'yes', '--replicaof', '127.0.0.1 17911');
    await expect.poll(() => info('master_link_status', 'two'), { timeout: 10_000 }).toBe('up');
    await using resident = startAt('two');
    expect(await resident.ask('prepare')).toBe('ok');
    expect(await resident.ask('freeze')).toBe('ok');
    ask('SET r 1', 'one of two');
    await sleep(500);
    expect(ask('GET r', 'two')).toBe('');
    expect(await resident.ask('verify')).toBe('ok');
    expect(await resident.ask('thaw ok')).toBe('ok');
    await expect.poll(() => ask('GET r', 'two')).toBe('1');
  }, 30_000);

  test('several servers, by TCP, in a cluster; one that saves nothing is passed over', async () => {
    await startServer(
      'cluster',
      '--save',
      '3600 1',
      '--cluster-enabled',
      'yes',
      '--port',
      '17912',
      '--bind',
      '127.0.0.1',
    );
    await startServer('cache', '--save', '', '--appendonly', 'no');
    for (const name of ['a', 'b', 'c']) await startServer(name, '--appendonly', 'yes');
    await using resident = await held();
    const waiting = ['one', 'a', 'b', 'c'].map((name) => aside('SET w 1', name));
    expect(await aside('SET w 1', 'cache')).toBeLessThan(1_000);
    await sleep(700);
    expect(await resident.ask('verify')).toBe('ok');
    expect(await resident.ask('thaw ok')).toBe('ok');
    for (const ms of waiting) expect(await ms).toBeGreaterThan(600);
  }, 30_000);

  test('a password and a user of its own, from a file that nobody else can read', async () => {
    const file = join(dir, 'credentials');
    const secret = 'a "b" \\c';
    writeFileSync(file, `user=keeper\npassword=${secret}\n`, { mode: 0o644 });
    expect(ask(`ACL SETUSER keeper on ${JSON.stringify(`>${secret}`)} ~fsfreeze-bridge:* +info +config|get +client +bgsave +del +echo`)).toBe('OK'); // prettier-ignore
    ask('ACL SETUSER default off');
    await using without = start();
    expect(await without.ask('prepare')).toMatch(/NOAUTH .* \(user and password: CREDENTIALS=\/PATH in .*\)$/);
    settings(`CREDENTIALS=${file}`);
    await using open = start();
    expect(await open.ask('prepare')).toBe(`error ${conf}: ${file} holds a password and has mode 644, expected 600`);
    chmodSync(file, 0o600);
    await using resident = await held();
    expect(await resident.ask('verify')).toBe('ok');
    for (const pid of [resident.pid, ...resident.clients])
      for (const file of ['cmdline', 'environ'])
        expect(readFileSync(`/proc/${pid}/${file}`, 'utf8')).not.toContain('a "b"');
    expect(await resident.ask('thaw ok')).toBe('ok');
    await killServer('one');
  });

  test('outside the set: not applicable; partly outside: refused, with what is outside', async () => {
    await using outside = start('/nowhere');
    expect(await outside.ask('prepare')).toBe('ended: 3');
    const other = mkdtempSync('/dev/shm/fsb-redis-');
    try {
      await startServer('far', '--appendonly', 'yes', '--save', '');
      writeFileSync(join(other, 'dump.rdb'), '');
      symlinkSync(join(other, 'dump.rdb'), join(dir, 'far/dump.rdb'));
      await using partly = start();
      expect(await partly.ask('prepare')).toMatch(
        /^error .* is in the set that is cut, but \/dev\/shm\/fsb-redis-.* is not$/,
      );
    } finally {
      rmSync(other, { recursive: true });
    }
  });

  test('a server in a container is named, with what passes over it', async () => {
    mkdirSync(join(dir, 'box'));
    copyFileSync('/bin/sleep', join(dir, 'box/redis-server'));
    const script = `cd '${dir}/box' && exec '${dir}/box/redis-server' 600`;
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
