// guest-exec with real programs: what is captured, what is told, and that no child holds anything up.
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { execLimits } from '../../../../src/agent/exec-capture.js';
import { execHandlers } from '../../../../src/agent/handlers/exec.js';
import { runProgram } from '../../../../src/agent/program.js';
import { killGroup } from '../../../../src/linux/process-group.js';
import type { Args, Returns } from '../../../../src/qga/commands.js';
import { context, madeUpGuest, type MadeUpGuest } from '../../../support/guest-sources.js';

let guest: MadeUpGuest;
let exec: ReturnType<typeof execHandlers>;
const started: number[] = [];
const make = (compat: '10.2' | '7.2' = '10.2'): void => {
  guest = madeUpGuest({}, compat, runProgram);
  exec = execHandlers(guest.sources);
};
beforeEach(() => {
  make();
});
afterEach(() => {
  for (const pid of started.splice(0)) killGroup(pid, 'SIGKILL');
});

const start = async (args: Args<'guest-exec'>): Promise<number> => {
  const pid = Number((await exec['guest-exec'](args, context)).pid);
  started.push(pid);
  return pid;
};
const status = async (pid: number): Promise<Returns<'guest-exec-status'>> =>
  await exec['guest-exec-status']({ pid }, context);
const end = async (pid: number): Promise<Returns<'guest-exec-status'>> => {
  for (;;) {
    const found = await status(pid);
    if (found.exited) return found;
    await sleep(10);
  }
};
const run = async (args: Args<'guest-exec'>) => await end(await start(args));
const shell = (script: string, capture?: Args<'guest-exec'>['capture-output']): Args<'guest-exec'> => ({
  path: '/bin/sh',
  arg: ['-c', script],
  'capture-output': capture,
});
const isAlive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};
const b64 = (text: string): string => Buffer.from(text).toString('base64');

test('tells exit code and output once, and then knows the program no more', async () => {
  const pid = await start({ path: '/bin/echo', arg: ['hi'], 'capture-output': true });
  expect(await end(pid)).toEqual({ exited: true, exitcode: 0, 'out-data': b64('hi\n'), 'out-truncated': false });
  await expect(status(pid)).rejects.toThrow(`PID ${pid} does not exist`);
});

test.each<[Args<'guest-exec'>['capture-output'], string | undefined, string | undefined]>([
  [undefined, undefined, undefined],
  [false, undefined, undefined],
  ['none', undefined, undefined],
  ['stdout', 'o\n', undefined],
  ['stderr', undefined, 'e\n'],
  ['separated', 'o\n', 'e\n'],
  [true, 'o\n', 'e\n'],
  ['merged', 'o\ne\n', undefined],
])('captures %j', async (mode, out, err) => {
  expect(await run(shell('echo o; echo e >&2; exit 3', mode))).toEqual({
    exited: true,
    exitcode: 3,
    ...(out === undefined ? {} : { 'out-data': b64(out), 'out-truncated': false }),
    ...(err === undefined ? {} : { 'err-data': b64(err), 'err-truncated': false }),
  });
});

test('lets a program open its output again', async () => {
  expect(await run(shell('echo a >/dev/stdout; echo b >/dev/stderr', 'merged'))).toMatchObject({
    'out-data': b64('a\nb\n'),
  });
});

test('tells the signal that ended it', async () => {
  expect(await run(shell('kill -9 $$', true))).toEqual({ exited: true, signal: 9 });
});

test('gives it input, all at once, and an end', async () => {
  const input = Buffer.alloc(300_000, 'x');
  const found = await run({ path: 'cat', 'input-data': input.toString('base64'), 'capture-output': true });
  expect(found['out-data']).toBe(input.toString('base64'));
  expect(await run({ path: 'cat', 'capture-output': true })).toEqual({ exited: true, exitcode: 0 });
});

test('gives it the environment it is told, and no other', async () => {
  const found = await run({ path: 'env', env: ['A=b=c', 'nonsense'], 'capture-output': true });
  expect(found['out-data']).toBe(b64('A=b=c\n'));
});

test('in a session of its own, ended by no signal to ours', async () => {
  const found = await run(shell('cut -d " " -f 1,5,6 /proc/$$/stat', true));
  const [pid, group, session] = Buffer.from(found['out-data'] ?? '', 'base64')
    .toString()
    .trim()
    .split(' ');
  expect([group, session]).toEqual([pid, pid]);
});

describe('what cannot be started', () => {
  test.each([
    ['/nope', 'No such file or directory'],
    ['/tmp', 'Permission denied'],
    ['no-such-program', 'No such file or directory'],
  ])('%s', async (path, why) => {
    const text = `Failed to execute child process \u201C${path}\u201D (${why})`;
    await expect(start({ path, 'capture-output': true })).rejects.toThrow(text);
    make('7.2');
    await expect(start({ path })).rejects.toThrow(`Guest agent command failed, error was '${text}'`);
  });

  test('leaves no pipe and no descriptor', async () => {
    const before = readdirSync('/proc/self/fd').length;
    await expect(start({ path: '/nope', 'capture-output': true, 'input-data': '' })).rejects.toThrow('/nope');
    await sleep(50);
    expect(readdirSync('/proc/self/fd').length).toBeLessThanOrEqual(before);
    expect(readdirSync(guest.sources.runtimeDir)).toEqual([]);
  });

  test('input that is no base64', async () => {
    await expect(start({ path: '/bin/cat', 'input-data': '!!' })).rejects.toThrow(
      'Base64 data contains invalid characters',
    );
  });

  test('a mode, where 7.2 had none', async () => {
    make('7.2');
    await expect(start(shell('true', 'merged'))).rejects.toThrow(
      `Invalid parameter type for 'capture-output', expected: boolean`,
    );
    await expect(status(1)).rejects.toThrow(`Invalid parameter 'pid'`);
  });
});

describe('limits', () => {
  test('keeps 16 MiB of a stream and reads on: the program ends', async () => {
    const found = await run({ path: 'head', arg: ['-c', '17000000', '/dev/zero'], 'capture-output': true });
    expect(found).toMatchObject({ exited: true, exitcode: 0, 'out-truncated': true });
    expect(Buffer.from(found['out-data'] ?? '', 'base64').length).toBe(execLimits.streamBytes);
  });

  test('keeps 64 MiB of all together, and has them back when they were asked for', async () => {
    const full = { path: 'head', arg: ['-c', '16777216', '/dev/zero'], 'capture-output': true };
    const pids = [];
    for (let turn = 0; turn < 4; turn++) {
      pids.push(await start(full));
      await sleep(300);
    }
    await expect.poll(async () => (await run(shell('echo x', true)))['out-data'], { timeout: 8000 }).toBeUndefined();
    for (const pid of pids) expect((await end(pid))['out-truncated']).toBe(false);
    expect(await run(shell('echo x', true))).toMatchObject({ 'out-data': b64('x\n'), 'out-truncated': false });
  });

  test('runs 16 at once', async () => {
    const pids = await Promise.all(Array.from({ length: 16 }, () => start({ path: 'sleep', arg: ['100'] })));
    await expect(start({ path: 'true' })).rejects.toThrow('16 programs are running, which is the limit');
    process.kill(pids[0] ?? 0, 'SIGTERM');
    expect(await end(pids[0] ?? 0)).toEqual({ exited: true, signal: 15 });
    expect(await run({ path: 'true' })).toEqual({ exited: true, exitcode: 0 });
  });

  test('waits for what keeps the output open, as qemu-ga does', async () => {
    const pid = await start(shell('sleep 0.3 & echo x', true));
    await sleep(100);
    expect(await status(pid)).toEqual({ exited: false });
    expect(await end(pid)).toMatchObject({ exitcode: 0, 'out-data': b64('x\n') });
  });

  test('forgets the oldest of those nobody asks for', async () => {
    const first = await start({ path: 'true' });
    for (let turn = 0; turn < execLimits.ended; turn += 8) {
      const pids = await Promise.all(Array.from({ length: 8 }, () => start({ path: 'true' })));
      await expect.poll(() => pids.some(isAlive)).toBe(false);
    }
    await expect.poll(() => status(first).catch((error: unknown) => String(error))).toContain('does not exist');
  });
});

test('takes the protection from the memory killer off', async () => {
  const pid = await start({ path: 'sleep', arg: ['100'] });
  expect(readFileSync(`/proc/${pid}/oom_score_adj`, 'utf8')).toBe('0\n');
});
