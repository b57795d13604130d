// What the kernel counts of writes to a disk and to its partitions.
import { afterEach, beforeEach, expect, test } from 'vitest';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readWriteCount } from '../../../src/linux/write-counters.js';
import { FakeMachine } from '../../support/fake-machine.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'fsb-counters-'));
});
afterEach(() => {
  rmSync(dir, { recursive: true });
});

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
