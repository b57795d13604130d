// The small pure pieces: the freezer's lines, write counters, the longest lease, the table of states, dispatchers.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { coordinatorStates } from '../../../src/consistency.js';
import { StateError } from '../../../src/errors.js';
import { freezerText, freezerWord, parseFreezerLine } from '../../../src/freeze/freezer/lines.js';
import { killFreezer, processStartTime } from '../../../src/freeze/freezer/process.js';
import { longestLeaseMs } from '../../../src/freeze/session/lease.js';
import { levelNeeded, vetoes, type HookFailure } from '../../../src/freeze/judgement/requirement.js';
import { sessionTransitions, stepTo } from '../../../src/freeze/session/state.js';
import { readWriteCount } from '../../../src/linux/write-counters.js';
import { FakeMachine } from '../../support/fake-machine.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'fsb-small-'));
});
afterEach(() => {
  rmSync(dir, { recursive: true });
});

describe("the freezer's lines", () => {
  test.each(['', ' ', '/a b', 'tab\tnewline\n', 'back\\slash', 'é\u{1f600}', '\\', '~!'])(
    '%j goes there and back',
    (text) => {
      const word = freezerWord(text);
      expect(word).toMatch(/^[\x21-\x7e]+$/);
      expect(freezerText(word)).toBe(text);
    },
  );

  test('each kind', () => {
    expect(parseFreezerLine('ok freeze 2 1000000 9000000')).toEqual({
      kind: 'ok',
      verb: 'freeze',
      words: ['2', '1000000', '9000000'],
    });
    expect(parseFreezerLine('error busy host\\040tool 12 0 held\\040by')).toEqual({
      kind: 'error',
      code: 'busy',
      words: ['host\\040tool', '12', '0'],
      text: 'held by',
    });
    expect(parseFreezerLine('event expired 1 2')).toEqual({ kind: 'event', name: 'expired' });
    expect(parseFreezerLine('fs 3 thaw 22 1500000 2500000 1')).toEqual({
      kind: 'filesystem',
      answer: { index: 3, verb: 'thaw', errno: 22, startMs: 1.5, endMs: 2.5, ours: true },
    });
  });

  test.each(['', 'ok', 'fs 1 thaw', 'fs x freeze 0 1 2', 'fs 1 melt 0 1 2', 'hello world'])('%j is none', (line) => {
    expect(parseFreezerLine(line)).toBeUndefined();
  });
});

describe('write counters', () => {
  test('of a disk and of its partition; a write shows', () => {
    const machine = new FakeMachine(dir);
    const { path } = machine.virtioDisk('vda', 2);
    machine.block(`${path}/vda1`, { partition: true });
    const before = readWriteCount(machine.sysRoot, 'vda1');
    expect(before).toBeDefined();
    expect(readWriteCount(machine.sysRoot, 'vda1')).toBe(before);
    machine.writes(`${path}/vda1`, 1);
    expect(readWriteCount(machine.sysRoot, 'vda1')).not.toBe(before);
  });

  test('none to trust where accounting is off, or nothing is there', () => {
    const machine = new FakeMachine(dir);
    const { path } = machine.virtioDisk('vda', 2);
    machine.block(`${path}/vda1`, { partition: true });
    machine.file(`${path}/queue/iostats`, '0\n');
    expect(readWriteCount(machine.sysRoot, 'vda')).toBeUndefined();
    expect(readWriteCount(machine.sysRoot, 'vda1')).toBeUndefined();
    expect(readWriteCount(machine.sysRoot, 'vdx')).toBeUndefined();
  });
});

test('the longest lease stays below the limit at which the kernel panics, and only there', () => {
  const kernel = (panic: string, seconds: string): number => {
    writeFileSync(join(dir, 'hung_task_panic'), `${panic}\n`);
    writeFileSync(join(dir, 'hung_task_timeout_secs'), `${seconds}\n`);
    return longestLeaseMs(600_000, dir);
  };
  expect(kernel('0', '120')).toBe(600_000);
  expect(kernel('1', '120')).toBe(110_000);
  expect(kernel('1', '10')).toBe(5_000);
  expect(kernel('1', '0')).toBe(600_000);
  expect(longestLeaseMs(600_000, join(dir, 'none'))).toBe(600_000);
});

test('every way out goes through thawing, and no other step is allowed', () => {
  for (const from of coordinatorStates)
    for (const to of coordinatorStates) {
      if (sessionTransitions[from].includes(to)) expect(stepTo(to, from)).toBe(to);
      else expect(() => stepTo(to, from)).toThrow(StateError);
    }
  expect(coordinatorStates.filter((from) => sessionTransitions[from].includes('idle'))).toEqual(['thawing']);
  expect(coordinatorStates.filter((from) => sessionTransitions[from].includes('thawing'))).toEqual([
    'preparing',
    'holding',
    'freezing',
    'frozen',
  ]);
});

test('what a request requires', () => {
  expect(levelNeeded('auto', true)).toBe('application');
  expect(levelNeeded('auto', false)).toBe('filesystem');
  expect(levelNeeded('plain', true)).toBeUndefined();
  expect(levelNeeded('crash', true)).toBe('crash');
  const asked = ['auto', 'application', 'plain', 'filesystem', 'crash', 'none'] as const;
  const vetoing = (writer: { required: boolean; shipped: boolean }, hookFailure: HookFailure): readonly string[] =>
    asked.filter((require) => vetoes(writer, require, hookFailure));
  expect(vetoing({ required: true, shipped: false }, 'refuse')).toEqual(['auto', 'application', 'plain']);
  expect(vetoing({ required: true, shipped: false }, 'lower')).toEqual(['auto', 'application']);
  expect(vetoing({ required: true, shipped: true }, 'refuse')).toEqual(['auto', 'application']);
  expect(vetoing({ required: false, shipped: false }, 'refuse')).toEqual([]);
});

test('a process is named by pid and start time; only such a one is killed', () => {
  const own = processStartTime(process.pid);
  expect(own).toMatch(/^\d+$/);
  expect(processStartTime(2 ** 30)).toBeUndefined();
  expect(killFreezer({ pid: process.pid, startTime: own ?? '' })).toBe(false);
  expect(killFreezer({ pid: 1, startTime: processStartTime(1) ?? '' })).toBe(false);
  expect(killFreezer({ pid: 2 ** 30, startTime: '' })).toBe(false);
});
