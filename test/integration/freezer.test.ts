// The freezer against the kernel: real FIFREEZE and FITHAW on loop-mounted ext4 and xfs, in a mount namespace that holds
// nothing else (support/private-mounts.ts). The protocol is qga/freezer/README.md. Slow and hanging filesystems are
// played to it by its own C tests.
import { readFile, mkdir, writeFile } from 'node:fs/promises';
import { existsSync, readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { connectLines, type LineClient } from '../support/line-client.js';
import { privateMounts, type PrivateMount, type PrivateMounts } from '../support/private-mounts.js';
import { requires } from '../support/requires.js';

const EINVAL = 22;
const EBUSY = 16;
const ESTALE = 116;

const launch = (file: string, args: readonly string[]) => execa(file, args, { reject: false });
type Running = ReturnType<typeof launch>;

interface FilesystemLine {
  readonly index: number;
  readonly verb: string;
  readonly errno: number;
  readonly start: bigint;
  readonly end: bigint;
  readonly ours: string | undefined;
}

const filesystemLines = (lines: readonly string[]): FilesystemLine[] =>
  lines
    .filter((line) => line.startsWith('fs '))
    .map((line) => {
      const [, index, verb = '', errno, start = '0', end = '0', ours] = line.split(' ');
      return { index: Number(index), verb, errno: Number(errno), start: BigInt(start), end: BigInt(end), ours };
    });

const milliseconds = (nanoseconds: bigint): number => Number(nanoseconds) / 1e6;

requires(
  'root',
  'loop',
  'gcc',
  'make',
  'mkfs.ext4',
  'mkfs.xfs',
  'unshare',
  'nsenter',
  'busybox',
  'losetup',
  'socat',
)('the freezer', () => {
  let mounts: PrivateMounts;
  let freezer: Running;
  let folder = 0;
  /** Before the freezer's own words: a program that switches calls off. */
  let prefix: readonly string[] = [];
  const here = (name: string): string => `${mounts.shared}/${folder}/${name}`;
  const paths = (): string[] => [
      '--socket', `/shared/${folder}/freezer.sock`,
      '--marker', `/shared/${folder}/frozen`,
      '--rcu-knob', `/shared/${folder}/rcu_expedited`,
    ]; // prettier-ignore
  const run = (command: string, ...words: readonly string[]): Running => {
    const [file, args] = mounts.inside(command, ...words);
    return launch(file, args);
  };
  const runFreezer = (...words: readonly string[]): Running => {
    const [first = '', ...rest] = [...prefix, '/bin/freezer', ...words];
    return run(first, ...rest);
  };
  const start = async (...options: readonly string[]): Promise<void> => {
    freezer = runFreezer('--foreground', ...paths(), ...options);
    // After a death the old socket is still there: nobody answers on it, or a killed process that is inside FIFREEZE
    // still listens.
    for (let tries = 0; ; tries += 1) {
      const client = await connectLines(here('freezer.sock')).catch(() => undefined);
      const hello = (await client?.ask('hello', 200).catch(() => undefined))?.join() ?? '';
      client?.[Symbol.dispose]();
      if (hello.startsWith(`ok hello 1 ${String(freezer.pid)} `)) return;
      if (tries === 750) throw new Error('expected the freezer to answer within 15 s');
      await sleep(20);
    }
  };
  const mount = (name: string): PrivateMount => {
    const found = mounts.mounts.find((one) => one.name === name);
    if (found === undefined) throw new Error(`no mount ${name}`);
    return found;
  };
  const fsRequest = (group: number, { mountId, device, path }: PrivateMount): string =>
    `fs ${group} ${mountId} ${device} ${path}`;
  const planned = async (names: readonly string[], expedite = 0): Promise<LineClient> => {
    const client = await connectLines(here('freezer.sock'));
    expect(await client.ask(`plan session-1 the\\040test 60000 30000 ${expedite}`)).toEqual(['ok plan']);
    for (const [index, name] of names.entries()) {
      expect(await client.ask(fsRequest(0, mount(name)))).toEqual([`ok fs ${index}`]);
    }
    return client;
  };
  const write = (name: string): Running =>
    run('/bin/busybox', 'sh', '-c', `echo x >/mnt/${name}/written && /bin/busybox sync`);
  /** Not frozen: thawing answers EINVAL. */
  const expectThawed = async (...names: readonly string[]): Promise<void> => {
    for (const name of names) expect(await mounts.stranger('thaw', mount(name).index), name).toBe(EINVAL);
  };
  const until = async (what: string, holds: () => boolean, limitMs: number): Promise<void> => {
    const end = Date.now() + limitMs;
    while (!holds()) {
      if (Date.now() > end) throw new Error(`expected within ${limitMs} ms: ${what}`);
      await sleep(10);
    }
  };

  beforeAll(async () => {
    const filesystems = { a: 'ext4', b: 'ext4', c: 'ext4', d: 'ext4', e: 'ext4', f: 'ext4', x: 'xfs' } as const;
    mounts = await privateMounts({ filesystems, nested: [{ name: 'n', on: 'f' }], boundMs: 180_000 });
    const fixture = new URL('../../qga/freezer/test/without-pidfds.c', import.meta.url).pathname;
    await execa('gcc', ['-static', '-O2', '-o', `${mounts.shared}/without-pidfds`, fixture]);
  });
  afterAll(async () => {
    await mounts[Symbol.asyncDispose]();
  });
  beforeEach(async () => {
    folder += 1;
    await mkdir(`${mounts.shared}/${folder}`);
    await writeFile(here('rcu_expedited'), '0\n');
    prefix = [];
    await start('--no-kill');
  });
  afterEach(async () => {
    if (freezer.exitCode === null) freezer.kill('SIGKILL');
    await mounts.stranger('thaw', mount('f').index); // a failed test may have left the disk under n stalled
    await freezer;
    await run('/bin/freezer', '--thaw-marked', ...paths());
    await expectThawed(...mounts.mounts.map(({ name }) => name));
  });

  test('freezes side by side, holds writes, and thaws', async () => {
    using client = await planned(['a', 'x']);
    const frozen = await client.ask('freeze 10000');
    const lines = filesystemLines(frozen);
    expect(lines.map(({ index, verb, errno }) => [index, verb, errno])).toEqual([
      [0, 'freeze', 0],
      [1, 'freeze', 0],
    ]);
    expect(lines[0]?.start).toBeLessThan(lines[1]?.end ?? 0n);
    expect(lines[1]?.start).toBeLessThan(lines[0]?.end ?? 0n);
    const [, , count, first = '', deadline = ''] = (frozen.at(-1) ?? '').split(' ');
    expect(count).toBe('2');
    expect(BigInt(deadline) - BigInt(first)).toBe(10_000_000_000n);

    let written = false;
    const writer = write('a');
    void writer.then(() => (written = true));
    await sleep(300);
    expect(written).toBe(false);

    expect((await client.ask('status')).join()).toMatch(
      new RegExp(`^ok status frozen session-1 the\\\\040test \\d+ ${first} ${deadline} 2$`),
    );
    const thawed = await client.ask('thaw');
    expect(filesystemLines(thawed).map(({ errno, ours }) => [errno, ours])).toEqual([
      [0, '1'],
      [0, '1'],
    ]);
    expect(thawed.at(-1)).toBe('ok thaw');
    expect((await writer).exitCode).toBe(0);
    expect(await client.ask('status')).toEqual(['ok status idle \\ \\ 0 0 0 0']);
    expect(existsSync(here('frozen'))).toBe(false);
    expect(await client.ask('plan again me 1000 1000 0')).toEqual(['ok plan']);
  });

  test('freezes groups in ascending order and thaws them in descending order', async () => {
    using client = await planned([]);
    for (const [group, name] of [[2, 'a'], [1, 'b'], [2, 'c']] as const) await client.ask(fsRequest(group, mount(name))); // prettier-ignore
    const freeze = filesystemLines(await client.ask('freeze 5000'));
    for (const late of [0, 2]) expect(freeze[late]?.start).toBeGreaterThanOrEqual(freeze[1]?.end ?? 0n);
    const thaw = filesystemLines(await client.ask('thaw'));
    for (const early of [0, 2]) expect(thaw[1]?.start).toBeGreaterThanOrEqual(thaw[early]?.end ?? 0n);
  });

  test('writes down what is frozen, and by whom', async () => {
    using client = await planned(['a', 'x'], 1);
    await mounts.stranger('freeze', mount('x').index);
    await client.ask('freeze 5000');
    const [, , , pid, startTime] = (await client.ask('hello')).join().split(' ');
    expect(Number(pid)).toBe(freezer.pid);
    const marker = (await readFile(here('frozen'), 'utf8')).trimEnd().split('\n');
    expect(marker).toEqual([
      `fsfreeze-bridge 1 ${pid} ${startTime} session-1 0`,
      `frozen ${mount('a').mountId} ${mount('a').device} /mnt/a`,
      `refused ${mount('x').mountId} ${mount('x').device} /mnt/x`,
    ]);
    await client.ask('thaw');
    expect(await mounts.stranger('thaw', mount('x').index)).toBe(0);
  });

  test('thaws by itself when the lease ends', async () => {
    using client = await planned(['a', 'b']);
    const [, , , first = '', deadline = ''] = ((await client.ask('freeze 500')).at(-1) ?? '').split(' ');
    const writer = write('a');
    const events = await client.answer('event thawed');
    expect(events[0]).toMatch(new RegExp(`^event expired ${first} \\d+$`));
    const now = BigInt(events[0]?.split(' ')[3] ?? 0);
    expect(milliseconds(now - BigInt(deadline))).toBeGreaterThanOrEqual(0);
    expect(milliseconds(now - BigInt(deadline))).toBeLessThan(200);
    expect(filesystemLines(events).map(({ errno, ours }) => [errno, ours])).toEqual([
      [0, '1'],
      [0, '1'],
    ]);
    expect(events.at(-1)).toBe('event thawed expired');
    expect((await writer).exitCode).toBe(0);
    expect((await client.ask('renew 1000')).join()).toMatch(/^error expired /);
    expect((await client.ask('thaw')).join()).toMatch(/^error expired /);
    expect((await client.ask('status')).join()).toMatch(/^ok status idle /);
  });

  test('a renewed lease goes on, never beyond its longest', async () => {
    using client = await connectLines(here('freezer.sock'));
    await client.ask('plan s me 1500 5000 0');
    await client.ask(fsRequest(0, mount('a')));
    expect((await client.ask('freeze 1501')).join()).toMatch(/^error limit /);
    const [, , , first = '0'] = ((await client.ask('freeze 500')).at(-1) ?? '').split(' ');
    await sleep(300);
    const renewed = BigInt(((await client.ask('renew 500')).at(-1) ?? '').split(' ')[2] ?? 0);
    expect(milliseconds(renewed - BigInt(first))).toBeGreaterThan(750);
    const longest = ((await client.ask('renew 60000')).at(-1) ?? '').split(' ')[2];
    expect(BigInt(longest ?? 0) - BigInt(first)).toBe(1_500_000_000n);
    await client.ask('thaw');
  });

  test('an expiry waits for a critical section, within its bound', async () => {
    using client = await planned(['a']);
    await client.ask('freeze 300');
    await client.ask('critical on 10000');
    expect(await client.line()).toMatch(/^event expired /);
    await sleep(300);
    expect((await client.ask('status')).join()).toMatch(/^ok status thawing .* 1$/);
    expect(await client.ask('critical off')).toEqual(['ok critical']);
    expect((await client.answer('event thawed')).at(-1)).toBe('event thawed expired');
  });

  test('thaws at once when the connection closes', async () => {
    const client = await planned(['a', 'b']);
    await client.ask('freeze 30000');
    using other = await connectLines(here('freezer.sock'));
    const before = Date.now();
    client[Symbol.dispose]();
    let status = '';
    while (!status.startsWith('ok status idle')) {
      status = (await other.ask('status')).join();
      if (Date.now() - before > 1000) throw new Error(`expected idle within 1 s, found ${status}`);
    }
    await expectThawed('a', 'b');
  });

  test('after its death, --thaw-marked thaws what it left', async () => {
    using client = await planned(['a', 'b', 'x']);
    await writeFile(here('rcu_expedited'), '0\n');
    await client.ask('freeze 30000');
    freezer.kill('SIGKILL');
    await freezer;
    await client.closed;
    const writer = write('a');
    await sleep(200);
    const { exitCode, stdout } = await run('/bin/freezer', '--thaw-marked', ...paths());
    expect(stdout).toBe('thawed 0 /mnt/a\nthawed 0 /mnt/b\nthawed 0 /mnt/x');
    expect(exitCode).toBe(0);
    expect((await writer).exitCode).toBe(0);
    expect(existsSync(here('frozen'))).toBe(false);
  });

  /** RHEL 8 has 4.18, Debian 10 4.19: neither has pidfd_open, close_range, SO_PEERPIDFD. */
  const kernels = [
    ['as it is', []],
    ['without pidfds, as Linux 4.18', ['/shared/without-pidfds']],
  ] as const;
  const startOn = async (words: readonly string[], ...options: readonly string[]): Promise<void> => {
    prefix = words;
    freezer.kill('SIGTERM');
    expect((await freezer).exitCode).toBe(0);
    await start(...options);
  };

  test.each(kernels)('--thaw-marked ends a freezer that is stopped, but not one that answers: %s', async (_, words) => {
    await startOn(words, '--no-kill');
    using client = await planned(['a']);
    await client.ask('freeze 30000');
    const refused = await runFreezer('--thaw-marked', ...paths());
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toContain(`process ${String(freezer.pid)} holds what is marked, and answers`);
    expect((await client.ask('status')).join()).toMatch(/^ok status frozen .* 1$/);

    freezer.kill('SIGSTOP');
    const thawed = await runFreezer('--thaw-marked', ...paths());
    expect(thawed.stdout).toBe('thawed 0 /mnt/a');
    expect(thawed.exitCode).toBe(0);
    expect((await freezer).signal).toBe('SIGKILL');
  });

  test('a successor thaws first, and serves then', async () => {
    using client = await planned(['a']);
    await client.ask('freeze 30000');
    freezer.kill('SIGKILL');
    await freezer;
    await start('--no-kill');
    using next = await connectLines(here('freezer.sock'));
    expect((await next.ask('status')).join()).toMatch(/^ok status idle/);
    await expectThawed('a');
  });

  /** Makes the disk under /mnt/n stop answering, with data to be written to it. */
  const stallDisk = async (): Promise<void> => {
    await run('/bin/busybox', 'dd', 'if=/dev/urandom', 'of=/mnt/n/dirty', 'bs=64k', 'count=16');
    expect(await mounts.stranger('freeze', mount('f').index)).toBe(0);
  };
  const letDiskGoOn = async (): Promise<void> => {
    expect(await mounts.stranger('thaw', mount('f').index)).toBe(0);
  };

  const marked = (): string[] => readdirSync(here('')).filter((name) => name.startsWith('frozen'));

  test('a FIFREEZE that is under way when the lease ends is thawed as soon as it returns, the others at once', async () => {
    using client = await planned(['a', 'n']);
    await stallDisk();
    expect((await client.ask('freeze 400')).join(' ')).toMatch(/^fs 0 freeze 0 \d+ \d+ error expired /);
    expect(await client.line()).toMatch(/^event expired /);
    await sleep(100);
    await expectThawed('a');
    client.send('thaw');
    await sleep(300);
    await letDiskGoOn();
    const thawed = await client.answer('event thawed');
    expect(filesystemLines(thawed).map(({ errno, ours }) => [errno, ours])).toEqual([
      [0, '1'],
      [0, '1'],
    ]);
    expect(await client.line()).toMatch(/^error expired /);
    await expectThawed('n');
  });

  test.each(kernels)('killed during a FIFREEZE: --thaw-marked sees it through: %s', async (_, words) => {
    await startOn(words, '--no-kill');
    using client = await planned(['a', 'n']);
    await stallDisk();
    client.send('freeze 30000');
    await sleep(300);
    freezer.kill('SIGKILL');
    const thawing = runFreezer('--thaw-marked', ...paths());
    await sleep(1500); // it asks the dying one first, for a second at most
    await expectThawed('a');
    expect(existsSync(`/proc/${String(freezer.pid)}`)).toBe(true); // it is inside FIFREEZE
    await letDiskGoOn();
    const { stdout, exitCode } = await thawing;
    expect(stdout).toBe('thawed 0 /mnt/a\nthawed 0 /mnt/n');
    expect(exitCode).toBe(0);
    await freezer;
    await expectThawed('n');
  });

  test.each(kernels)('killed during a FIFREEZE: a successor starts, and thaws first: %s', async (_, words) => {
    await startOn(words, '--no-kill');
    using client = await planned(['a', 'n']);
    await stallDisk();
    client.send('freeze 30000');
    await sleep(300);
    freezer.kill('SIGKILL');
    const killed = freezer;
    const starting = start('--no-kill');
    await sleep(500);
    await letDiskGoOn();
    await starting;
    await killed;
    await expectThawed('a', 'n');
    using next = await planned(['a', 'n']);
    expect((await next.ask('freeze 10000')).at(-1)).toMatch(/^ok freeze 2 /);
  });

  test('a FIFREEZE that hangs is given up at its limit: named, the others thawed at once', async () => {
    using client = await planned(['a', 'n']);
    await stallDisk();
    const before = Date.now();
    const answer = await client.ask('freeze 30000 400');
    expect(Date.now() - before).toBeLessThan(1500);
    expect(filesystemLines(answer).map(({ index, errno, end }) => [index, errno, end > 0n])).toEqual([
      [0, 0, true],
      [1, 110, false],
    ]);
    expect(answer.at(-1)).toMatch(/^error freeze freeze:.*400.*\/mnt\/n$/);
    await sleep(100);
    await expectThawed('a');
    const thawed = await client.ask('thaw', 1000);
    expect(filesystemLines(thawed).map(({ errno, ours }) => [errno, ours])).toEqual([
      [0, '1'],
      [110, '0'],
    ]);
    expect(thawed.at(-1)).toBe('ok thaw 1');

    // The next session works without it; it is named, and thawed the moment that the kernel returns it.
    using next = await planned(['b']);
    expect((await next.ask(fsRequest(0, mount('n')))).join()).toMatch(/^error fs 16 .*its\\040freeze\\040has\\040not/);
    expect((await next.ask('hung')).join()).toMatch(/^hung freeze \d+ session-1 \/mnt\/n,ok hung$/);
    expect((await next.ask('freeze 10000')).at(-1)).toMatch(/^ok freeze 1 /);
    expect(marked()).toEqual(['frozen', expect.stringMatching(/^frozen\.left-\d+-\d+-1$/)]);
    await letDiskGoOn();
    await until('nothing hangs', () => marked().length === 1, 2000);
    await expectThawed('n');
    expect((await next.ask('hung')).join()).toBe('ok hung');
    expect((await next.ask('status')).join()).toMatch(/^ok status frozen .* 1$/);
    expect((await next.ask('thaw')).at(-1)).toBe('ok thaw');
    expect(marked()).toEqual([]);
  });

  test('killed with a FIFREEZE that was given up: --thaw-marked, and a successor, see it through', async () => {
    for (const successor of [false, true]) {
      using client = await planned(['a', 'n']);
      await stallDisk();
      expect((await client.ask('freeze 30000 200')).at(-1)).toMatch(/^error freeze /);
      expect((await client.ask('thaw')).at(-1)).toBe('ok thaw 1');
      const dead = freezer;
      dead.kill('SIGKILL');
      if (successor) {
        await start('--no-kill'); // without waiting for it: no session of the dead one is marked
        using next = await planned(['a']);
        expect((await next.ask(fsRequest(0, mount('n')))).join()).toMatch(/^error fs 16 /);
        expect((await next.ask('freeze 10000')).at(-1)).toMatch(/^ok freeze 1 /);
        await letDiskGoOn();
        await until('nothing is left', () => marked().length === 1, 10_000);
        expect((await next.ask('thaw')).at(-1)).toBe('ok thaw');
      } else {
        const thawing = run('/bin/freezer', '--thaw-marked', ...paths());
        await sleep(500);
        await letDiskGoOn();
        expect(await thawing).toMatchObject({ exitCode: 0, stdout: 'thawed 0 /mnt/n' });
        await dead;
        await start('--no-kill');
      }
      await dead;
      expect(marked()).toEqual([]);
      await expectThawed('a', 'n');
    }
  });

  test('asked to end while a FIFREEZE that was given up hangs, it stays until that is thawed', async () => {
    using client = await planned(['n']);
    await stallDisk();
    expect((await client.ask('freeze 30000 200')).at(-1)).toMatch(/^error freeze /);
    expect((await client.ask('thaw')).at(-1)).toBe('ok thaw 1');
    freezer.kill('SIGTERM');
    await sleep(300);
    expect(freezer.exitCode).toBe(null);
    await letDiskGoOn();
    expect((await freezer).exitCode).toBe(0);
    expect(marked()).toEqual([]);
    await expectThawed('n');
  });

  test("a sync that hangs is in nobody's way, and parks one thread however often it is met", async () => {
    const threads = (): number => readdirSync(`/proc/${String(freezer.pid)}/task`).length;
    await stallDisk();
    try {
      for (let times = 0; times < 3; times += 1) {
        using client = await planned(['a']);
        expect((await client.ask(fsRequest(0, mount('n')))).join()).toMatch(
          times === 0 ? /^ok fs 1$/ : /^error fs 16 /,
        );
        const synced = filesystemLines(await client.ask('sync 300')).map(({ errno }) => errno);
        expect(synced).toEqual(times === 0 ? [0, 110] : [0]);
        expect((await client.ask('thaw')).at(-1)).toBe('ok thaw');
        expect((await client.ask('hung')).join()).toMatch(/^hung sync \d+ session-1 \/mnt\/n,ok hung$/);
        await until('its threads have ended', () => threads() <= 2, 2000);
      }
    } finally {
      await letDiskGoOn();
    }
    await until('the sync has returned', () => threads() === 1, 5000);
    using client = await planned(['a', 'n']);
    expect((await client.ask('freeze 10000')).at(-1)).toMatch(/^ok freeze 2 /);
  });

  test('leftovers on a disk that does not answer: marked through sessions and deaths, thawed in the end', async () => {
    using client = await planned(['a', 'n']);
    await stallDisk();
    client.send('freeze 60000');
    await sleep(300);
    freezer.kill('SIGKILL');
    const dead = freezer;
    await start('--no-kill'); // after the 10 s that it gives the disk
    const aside = `frozen.left-${String(dead.pid)}-`;
    expect(marked()).toEqual([expect.stringContaining(aside)]);
    await expectThawed('a');

    using next = await planned(['a', 'b']);
    expect((await next.ask(fsRequest(0, mount('n')))).join()).toMatch(/^error fs 16 /);
    expect((await next.ask('freeze 10000')).at(-1)).toMatch(/^ok freeze 2 /);
    expect(marked()).toEqual(['frozen', expect.stringContaining(aside)]);
    const second = await run('/bin/freezer', '--thaw-marked', ...paths());
    expect(second.exitCode).toBe(1);
    expect(second.stderr).toContain(`process ${String(freezer.pid)} holds what is marked`);
    expect((await next.ask('thaw')).at(-1)).toBe('ok thaw');
    expect(marked()).toEqual([expect.stringContaining(aside)]);

    const successor = freezer;
    successor.kill('SIGKILL'); // while it is inside FITHAW of the leftover
    await start('--no-kill');
    expect(marked()).toEqual([expect.stringContaining(aside)]);
    await letDiskGoOn();
    await until('nothing is marked', () => marked().length === 0, 3000);
    await Promise.all([dead, successor]);
    await expectThawed('n');
    using last = await planned(['a', 'n']);
    expect((await last.ask('freeze 10000')).at(-1)).toMatch(/^ok freeze 2 /);
    expect((await last.ask('thaw')).at(-1)).toBe('ok thaw');
  });

  test('a FITHAW that does not return is reported, and finishes with its disk', async () => {
    using client = await planned(['a', 'n']);
    expect((await client.ask('freeze 30000')).at(-1)).toMatch(/^ok freeze 2 /);
    expect(await mounts.stranger('freeze', mount('f').index)).toBe(0);
    const stuck = await client.ask('thaw');
    expect(filesystemLines(stuck).map(({ errno }) => errno)).toEqual([0, 110]);
    expect(stuck.at(-1)).toMatch(/^error thaw /);
    await expectThawed('a');
    await letDiskGoOn();
    expect(filesystemLines(await client.ask('thaw')).map(({ errno, ours }) => [errno, ours])).toEqual([
      [0, '1'],
      [0, '1'],
    ]);
  });

  test('--thaw-marked with nothing marked has nothing to do', async () => {
    expect(await run('/bin/freezer', '--thaw-marked', ...paths())).toMatchObject({
      exitCode: 0,
      stdout: '',
      stderr: '',
    });
  });

  test('--thaw-marked refuses a damaged marker', async () => {
    await writeFile(here('frozen'), 'fsfreeze-bridge 2 1 1 s -\n');
    const { exitCode, stderr } = await run('/bin/freezer', '--thaw-marked', ...paths());
    expect(exitCode).toBe(1);
    expect(stderr).toContain('damaged at line 1');
    await writeFile(here('frozen'), `fsfreeze-bridge 1 999999 1 s -\n`);
  });

  test('tells of a foreign thaw', async () => {
    using client = await planned(['a', 'b']);
    await client.ask('freeze 10000');
    expect(await mounts.stranger('thaw', mount('a').index)).toBe(0);
    expect(filesystemLines(await client.ask('thaw')).map(({ errno, ours }) => [errno, ours])).toEqual([
      [EINVAL, '1'],
      [0, '1'],
    ]);
  });

  test("leaves a stranger's freeze alone", async () => {
    expect(await mounts.stranger('freeze', mount('a').index)).toBe(0);
    using client = await planned(['a', 'b']);
    const frozen = await client.ask('freeze 10000');
    expect(filesystemLines(frozen).map(({ errno }) => errno)).toEqual([EBUSY, 0]);
    expect(frozen.at(-1)).toMatch(/^ok freeze 1 /);
    expect(filesystemLines(await client.ask('thaw')).map(({ errno, ours }) => [errno, ours])).toEqual([
      [0, '0'],
      [0, '1'],
    ]);
    expect(await mounts.stranger('thaw', mount('a').index)).toBe(0);
  });

  test('only one holds the session; the next one is told who', async () => {
    using client = await planned(['a']);
    using other = await connectLines(here('freezer.sock'));
    expect((await other.ask('plan s2 other 1000 1000 0')).join()).toMatch(/^error busy the\\040test \d+ 0 /);
    const [, , , , deadline = ''] = ((await client.ask('freeze 10000')).at(-1) ?? '').split(' ');
    expect((await other.ask('plan s2 other 1000 1000 0')).join()).toMatch(
      new RegExp(`^error busy the\\\\040test \\d+ ${deadline} `),
    );
    expect((await other.ask('thaw')).join()).toMatch(/^error state /);
    await client.ask('thaw');
    expect(await other.ask('plan s2 other 1000 1000 0')).toEqual(['ok plan']);
  });

  test('syncs side by side', async () => {
    using client = await planned(['a', 'x']);
    const lines = await client.ask('sync 5000');
    expect(filesystemLines(lines).map(({ verb, errno }) => [verb, errno])).toEqual([['sync', 0], ['sync', 0]]); // prettier-ignore
    expect(lines.at(-1)).toBe('ok sync');
  });

  test('refuses what is not the mount that was planned', async () => {
    using client = await planned(['a']);
    const { mountId, device, path } = mount('b');
    const answers = [
      `fs 0 ${mount('c').mountId} ${device} ${path}`,
      `fs 0 ${mountId} 7:250 ${path}`,
      `fs 0 99999 ${device} ${path}`,
      `fs 0 ${mountId} ${device} /mnt/c`,
    ];
    for (const request of answers) expect((await client.ask(request)).join(), request).toMatch(new RegExp(`^error fs ${ESTALE} `)); // prettier-ignore
    expect((await client.ask(`fs 0 ${mountId} ${device} /mnt/nowhere`)).join()).toMatch(/^error fs 2 /);
    expect((await client.ask(fsRequest(0, mount('a')))).join()).toMatch(/^error fs 17 /);
    expect(await client.ask(`fs 0 ${mountId} 0:0 ${path}`)).toEqual(['ok fs 1']);
  });

  test('answers garbage, and drops who sends nothing else', async () => {
    using client = await connectLines(here('freezer.sock'));
    for (let sent = 0; sent < 15; sent += 1)
      expect((await client.ask('fr\u00e9eze  1')).join()).toMatch(/^error syntax /);
    expect((await client.ask('hello')).join()).toMatch(/^ok hello 1 /);
    await client.ask('plan');
    await client.closed;
    using long = await connectLines(here('freezer.sock'));
    long.socket.write('x'.repeat(9000));
    expect(await long.line()).toMatch(/^error limit /);
    await long.closed;
  });

  test('a session that never freezes ends with its budget', async () => {
    using client = await connectLines(here('freezer.sock'));
    await client.ask('plan s me 1000 300 0');
    await client.closed;
    using next = await connectLines(here('freezer.sock'));
    expect((await next.ask('status')).join()).toMatch(/^ok status idle/);
  });

  test.each(kernels)('kills a holder that does not let go, and one that never freezes: %s', async (_, words) => {
    await startOn(words);
    for (const [budget, freeze] of [
      [400, ''],
      [5000, 'freeze 300\n'],
    ] as const) {
      // prettier-ignore
      const holder = execa('socat', ['-', `UNIX-CONNECT:${here('freezer.sock')}`], { reject: false });
      holder.stdin.write(`plan s holder 1000 ${budget} 0\n${fsRequest(0, mount('a'))}\n${freeze}`);
      await until('the holder is killed', () => holder.signalCode === 'SIGKILL', 3000);
      await holder;
      await expectThawed('a');
    }
  });

  test('SIGTERM is obeyed when all is thawed', async () => {
    using client = await planned(['a']);
    await client.ask('freeze 20000');
    freezer.kill('SIGTERM');
    await sleep(200);
    expect(freezer.exitCode).toBe(null);
    expect((await client.ask('status')).join()).toMatch(/^ok status frozen/);
    expect((await client.ask('thaw')).at(-1)).toBe('ok thaw');
    expect((await freezer).exitCode).toBe(0);
    expect(existsSync(here('freezer.sock'))).toBe(false);
  });

  test('a kernel older than 4.18 is refused by name', async () => {
    // The personality that shows programs a 2.6 kernel.
    const { exitCode, stderr } = await execa(
      'setarch',
      ['--uname-2.6', ...mounts.inside('/bin/freezer', ...paths()).flat()],
      {
        reject: false,
      },
    );
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/^freezer: kernel: expected Linux 4\.18 or newer, found 2\.6\./);
  });

  test('a second one does not start', async () => {
    const second = await run('/bin/freezer', ...paths());
    expect(second.exitCode).toBe(3);
    expect(second.stderr).toContain(`already running, pid ${String(freezer.pid)}`);
  });

  test('puts the RCU knob back, and leaves it alone where it must', async () => {
    for (const [expedite, normal, marked] of [
      [1, '0', '0'],
      [0, '0', '-'],
      [1, '1', '-'],
    ] as const) {
      // prettier-ignore
      await writeFile(here('rcu_normal'), `${normal}\n`);
      using client = await planned(['a'], expedite);
      await client.ask('freeze 10000');
      // Put back after the answer: the holder does not wait for it.
      await expect.poll(async () => (await readFile(here('rcu_expedited'), 'utf8')).trim()).toBe('0');
      expect((await readFile(here('frozen'), 'utf8')).split('\n')[0]).toMatch(new RegExp(` ${marked}$`));
      await client.ask('thaw');
    }
    await writeFile(here('rcu_expedited'), '1\n');
    await writeFile(here('frozen'), 'fsfreeze-bridge 1 999999 1 s 0\n');
    expect((await run('/bin/freezer', '--thaw-marked', ...paths())).exitCode).toBe(0);
    expect((await readFile(here('rcu_expedited'), 'utf8')).trim()).toBe('0');
  });

  test('is small with seven filesystems', async () => {
    using client = await planned(['a', 'b', 'c', 'd', 'e', 'f', 'x']);
    expect((await client.ask('freeze 10000')).at(-1)).toMatch(/^ok freeze 7 /);
    const status = await readFile(`/proc/${String(freezer.pid)}/status`, 'utf8');
    const rss = Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]);
    expect(rss).toBeLessThanOrEqual(2048);
    const thawed = filesystemLines(await client.ask('thaw'));
    expect(thawed.every(({ errno, ours }) => errno === 0 && ours === '1')).toBe(true);
  });
});
