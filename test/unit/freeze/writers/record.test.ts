// What a session leaves for its successor, also when its process dies while it writes.
import { afterEach, beforeEach, expect, test } from 'vitest';
import { appendFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { tmpdir } from 'node:os';
import { LeftRecord } from '../../../../src/freeze/writers/left-record.js';
import { makerOf, SessionRecord } from '../../../../src/freeze/writers/record.js';
import { pathText } from '../../../../src/linux/path-text.js';
import { processStat, stillRuns } from '../../../../src/linux/process-stat.js';
import type { Writer } from '../../../../src/freeze/writers/folders.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'fsb-record-'));
});
afterEach(() => {
  rmSync(dir, { recursive: true, force: true });
});

const create = (session = 's'): LeftRecord =>
  reopened(SessionRecord.create(dir, { session, requester: 'r', leaseMs: 1_000, mountpoints: ['/'] }));
const writer = (name: string): Writer => ({
  name,
  path: `/w/${name}`,
  folder: { path: '/w', style: 'bridge' },
  kind: 'described',
  required: true,
  rank: 50,
  phases: ['freeze', 'thaw'],
});
const names = (record: LeftRecord): string[] => record.unreleased().map(({ name }) => name);
const reopened = (record: SessionRecord): LeftRecord => LeftRecord.open(record.dir);

test('comes into being whole, under its own name', () => {
  const record = create();
  expect(readdirSync(join(dir, 'sessions'))).toEqual(['s']);
  expect(readdirSync(record.dir).sort()).toEqual(['head.json', 'output', 'scratch']);
  expect(record.head()).toMatchObject({ session: 's', pid: process.pid, mountpoints: ['/'] });
  expect(stillRuns(record.head())).toBe(true);
});

test('mount points are listed byte by byte, whatever they are', () => {
  const latin1 = Buffer.from('/srv/gr\xfc\xdfe', 'latin1');
  const mountpoints = ['/srv/größe', pathText(latin1), '/two\nlines'];
  const record = SessionRecord.create(dir, { session: 's', requester: 'r', leaseMs: 1_000, mountpoints });
  const listed = Buffer.concat([Buffer.from('/srv/größe\n'), latin1, Buffer.from('\n')]);
  expect(readFileSync(record.mountpointsPath)).toEqual(listed);
  expect(reopened(record).head().mountpoints).toEqual(mountpoints);
});

test('an id that is in use is refused, and leaves nothing behind', () => {
  create();
  expect(() => create()).toThrow('session s needs state a new id, found an id in use');
  expect(readdirSync(join(dir, 'sessions'))).toEqual(['s']);
});

test('the maker of an unfinished one is in its name', () => {
  expect(makerOf('.new-12-345-some-id')).toEqual({ pid: 12, startTime: '345' });
  expect(makerOf('new-12-345-some-id')).toBeUndefined();
});

test.each([0, 1, 10, 60])('cut short %d characters before its end: what comes after is read', (missing) => {
  const record = create();
  record.noteStarted([
    { writer: writer('a'), limitMs: 1 },
    { writer: writer('b'), limitMs: 1 },
  ]);
  const line = `${JSON.stringify({ event: 'released', path: '/w/a' })}\n`;
  appendFileSync(join(record.dir, 'writers'), line.slice(0, Math.max(1, line.length - missing)));
  const next = reopened(record);
  next.noteReleased('/w/b');
  next.noteStarted([{ writer: writer('c'), limitMs: 1 }]);
  expect(names(reopened(next))).toEqual(missing < 2 ? ['c'] : ['a', 'c']);
});

test('garbage alone is as nothing', () => {
  const record = create();
  expect([names(record), record.ended(), record.runningProcesses()]).toEqual([[], false, []]);
  writeFileSync(join(record.dir, 'writers'), 'null\n{}\n{"event":"released"}\n[1]\n\u0000\n');
  expect([names(record), record.ended(), record.runningProcesses()]).toEqual([[], false, []]);
});

test('what runs is told from what has ended, and what was about to be started', () => {
  const record = create();
  record.noteStarting(writer('a'), 'freeze');
  record.noteStarting(writer('b'), 'freeze');
  const { pid } = process;
  record.noteProcess({ path: '/w/a', pid, startTime: processStat(pid)?.startTime ?? '' });
  record.noteProcess({ path: '/w/z', pid: 999_999_999, startTime: '1', resident: true });
  expect(record.runningProcesses().map(({ path, pid }) => [path, pid])).toEqual([['/w/a', process.pid]]);
  expect(record.startingPhases().map(({ path, phase }) => [path, phase])).toEqual([['/w/b', 'freeze']]);
});

test('notes that cannot be written: those that must be, throw', () => {
  const record = create();
  mkdirSync(join(record.dir, 'writers'));
  record.noteStarting(writer('a'), 'freeze');
  record.noteProcess({ path: '/w/a', pid: process.pid, startTime: '1' });
  expect(() => {
    record.noteStarted([{ writer: writer('a'), limitMs: 1 }]);
  }).toThrow();
});
