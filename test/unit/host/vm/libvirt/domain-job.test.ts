// What libvirt tells of a domain's job.
import { expect, test } from 'vitest';
import { endedBackup, runningJob, whyAnother } from '../../../../../src/host/vm/libvirt/domain-job.js';
import type { Virsh } from '../../../../../src/host/vm/libvirt/virsh.js';

const virsh = (text: string): Virsh => ({ run: () => Promise.resolve(text) }) as unknown as Virsh;
const lines = (...all: readonly string[]): Virsh => virsh(`${all.join('\n')}\n\n`);

test('none, or one with its progress', async () => {
  expect(await runningJob(lines('Job type: 0'))).toBeUndefined();
  expect(await runningJob(lines('Job type: 3', 'operation: 9'))).toBeUndefined();
  const job = [
    'Job type: 2',
    'time_elapsed: 5',
    'operation: 9',
    'disk_total: 30',
    'disk_processed: 10',
    'disk_remaining: 20',
  ];
  expect(await runningJob(lines(...job))).toEqual({ current: 10, total: 30, elapsedMs: 5 });
  expect(await runningJob(lines('Job type: 1', 'operation: 2'))).toEqual({ current: 0, total: 0, elapsedMs: 0 });
});

test('one that ended is a success only if libvirt says so, and else has its reason', async () => {
  const of = (...more: readonly string[]) => lines('operation: 9', 'time_elapsed: 7', 'disk_total: 30', ...more);
  expect(await endedBackup(of('Job type: 3', 'success: 1'))).toEqual({ why: undefined, elapsedMs: 7, total: 30 });
  expect(await endedBackup(of('Job type: 3'))).toMatchObject({
    why: 'expected job type 3 and success 1, found 3 and none',
  });
  const failed = of('Job type: 4', 'success: 0', 'errmsg: No space: left');
  expect(await endedBackup(failed)).toMatchObject({ why: 'No space: left' });
  expect(await endedBackup(of('Job type: 5', 'success: 0'))).toMatchObject({ why: 'somebody ended it' });
});

test('the end of another job is none of a backup', async () => {
  expect(await endedBackup(lines('Job type: 3', 'operation: 2', 'success: 1'))).toBeUndefined();
  expect(await endedBackup(lines('Job type: 0'))).toBeUndefined();
});

test('the end is that of the job that was seen, by what libvirt tells of both', () => {
  const ended = { why: undefined, elapsedMs: 7, total: 30 };
  const seen = { current: 1, total: 30, elapsedMs: 6 };
  expect(whyAnother(ended, seen, 30)).toBeUndefined();
  expect(whyAnother(ended, undefined, 30)).toBeUndefined();
  // One that was as large took longer; a later one was over at once.
  expect(whyAnother(ended, { ...seen, elapsedMs: 8 }, 30)).toBe(
    'expected one of at least 30 bytes and 8 ms, found one of 30 bytes and 7 ms',
  );
  expect(whyAnother(ended, { ...seen, total: 31 }, 30)).toContain('at least 31 bytes');
  expect(whyAnother(ended, undefined, 31)).toContain('at least 31 bytes');
});
