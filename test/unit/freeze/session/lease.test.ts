// The longest lease that the guest's kernel bears.
import { afterEach, beforeEach, expect, test } from 'vitest';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { longestLeaseMs } from '../../../../src/freeze/session/lease.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'fsb-lease-'));
});
afterEach(() => {
  rmSync(dir, { recursive: true });
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
