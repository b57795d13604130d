// The letters that the freezer's heartbeat is given, by a program in its place that writes them down. What it makes of them
// is tested in C (qga/freezer/test/heartbeat.c), and with a real service manager in vm/service.test.ts.
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { startHeartbeat, type HeartbeatOptions } from '../../../src/agent/heartbeat.js';
import { scratch, type Scratch } from '../../support/scratch.js';

let folder: Scratch;
beforeEach(() => {
  folder = scratch();
});
afterEach(async () => {
  const heard = () => {
    try {
      return readFileSync(folder.path('pid'), 'utf8').trim();
    } catch {
      return '';
    }
  };
  const pid = Number(heard());
  if (pid > 0) {
    process.kill(pid, 'SIGKILL');
    // The one that takes its place has no folder any more.
    rewrite('exit 1');
    await expect.poll(() => errors.length).toBeGreaterThan(0);
  }
  folder[Symbol.dispose]();
});

let errors: string[] = [];
const rewrite = (script: string): void => {
  writeFileSync(folder.path('freezer'), `#!/bin/sh\n${script}\n`);
  chmodSync(folder.path('freezer'), 0o755);
};
const content = (name: string): string => {
  try {
    return readFileSync(folder.path(name), 'utf8');
  } catch {
    return '';
  }
};
const start = (env: Record<string, string>, script?: string) => {
  // Those of tests before go on trying.
  const own: string[] = [];
  errors = own;
  const at = folder.dir;
  rewrite(script ?? `echo $$ >${at}/pid; echo "$@ $NOTIFY_SOCKET $WATCHDOG_USEC" >${at}/words; exec cat >${at}/heard`);
  const options: HeartbeatOptions = {
    env,
    freezer: folder.path('freezer'),
    holdAtMostS: 700,
    onError: (error) => own.push(error.message),
  };
  return startHeartbeat(options);
};
const asked = () => ({
  NOTIFY_SOCKET: '/run/n',
  WATCHDOG_USEC: '300000',
  WATCHDOG_PID: String(process.pid),
  PATH: '/bin',
});

test('says at once and again and again that the loop turns, and when the guest is held and no more', async () => {
  const env = asked();
  const heartbeat = start(env);
  await expect.poll(() => content('heard')).toMatch(/^\.\.\.+$/);
  expect(content('words')).toBe('--heartbeat 700 /run/n 300000\n');
  heartbeat.hold();
  await expect.poll(() => content('heard')).toMatch(/^\.+h\.+$/);
  heartbeat.release();
  heartbeat.release();
  await expect.poll(() => content('heard')).toMatch(/^\.+h\.+r\.+$/);
  // A hook or a freezer that had these would speak in the agent's name.
  expect(env).toEqual({ PATH: '/bin' });
});

test('says nothing while the loop stands still', async () => {
  start(asked());
  await expect.poll(() => content('heard')).toMatch(/^\.\.+$/);
  const until = Date.now() + 600;
  const before = content('heard').length;
  while (Date.now() < until);
  expect(content('heard').length).toBeLessThanOrEqual(before + 1);
});

test('is started anew when it ends, and told whether the guest is held', async () => {
  const heartbeat = start(asked());
  heartbeat.hold();
  await expect.poll(() => content('heard')).toContain('h');
  process.kill(Number(content('pid')), 'SIGKILL');
  await expect.poll(() => errors).toEqual([expect.stringContaining('--heartbeat ended: SIGKILL')]);
  await expect.poll(() => content('heard'), { timeout: 5000 }).toMatch(/^h/);
});

test('is told of, and tried again, where a program cannot be started at all', async () => {
  const heard: string[] = [];
  // As without memory: spawn throws, and emits nothing.
  const freezer = 'no\0name';
  const onError = (error: Error): void => void heard.push(error.message);
  const heartbeat = startHeartbeat({ env: asked(), freezer, holdAtMostS: 700, onError });
  heartbeat.hold();
  heartbeat.release();
  expect(heard).toEqual([expect.stringContaining('null bytes')]);
  await expect.poll(() => heard.length, { timeout: 5000 }).toBe(2);
});

test.each([
  ['nobody asked', {}],
  ['another process is meant', { ...asked(), WATCHDOG_PID: '1' }],
])('is not started where %s', async (_, env) => {
  start(env);
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(content('pid')).toBe('');
});
