import { spawn, type ChildProcess } from 'node:child_process';
import { copyFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { processStat } from '../../../src/linux/process-stat.js';
import { runProgram } from '../../../src/snapshot/program.js';
import { udevAsBefore, udevLast } from '../../../src/snapshot/udev-last.js';
import { requires } from '../../support/requires.js';
import { scratch, type Scratch } from '../../support/scratch.js';

const OTHER = 0;
const IDLE = 5;

requires('chrt')('udev', () => {
  let folder: Scratch;
  let daemon: ChildProcess;
  const policy = (): number | undefined => processStat(daemon.pid ?? 0)?.policy;
  beforeEach(() => {
    folder = scratch();
    const program = folder.path('udevd');
    copyFileSync('/bin/sleep', program);
    daemon = spawn(program, ['60']);
  });
  afterEach(() => {
    daemon.kill('SIGKILL');
    folder[Symbol.dispose]();
  });

  test('goes last, and on as before', async () => {
    const goOn = await udevLast(runProgram);
    expect(policy()).toBe(IDLE);
    await goOn();
    expect(policy()).toBe(OTHER);
  });

  test('goes on as before when whoever had it go last is gone', async () => {
    await udevLast(runProgram);
    await udevAsBefore(runProgram);
    expect(policy()).toBe(OTHER);
  });

  test('that its administrator has go last is left so', async () => {
    await runProgram(['chrt', '-i', '-p', '0', String(daemon.pid)]);
    const goOn = await udevLast(runProgram);
    await goOn();
    expect(policy()).toBe(IDLE);
  });
});

describe('where udev cannot be told', () => {
  test('nothing fails for it', async () => {
    const goOn = await udevLast(async () => await Promise.reject(new Error('no shell')));
    await expect(goOn()).resolves.toBeUndefined();
  });
});
