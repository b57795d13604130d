// The lock of a VM's backups: one who changes them at a time, readers beside each other, and nobody for ever.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import {
  lockForChange,
  lockForReading,
  waitForReaders,
  whoChanges,
} from '../../../../src/host/repository/repository-lock.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

let folder: Scratch;
const repository = () => ({ path: folder.dir, id: '0a1b2c3d' });
const signal = new AbortController().signal;
const options = { operation: 'backup run', waitMs: 0, signal, onWarning: () => undefined };
const lockFile = (): string => join(folder.dir, 'locks', 'vm.json');
const change = (members: object): void => {
  writeFileSync(
    lockFile(),
    JSON.stringify({ ...(JSON.parse(readFileSync(lockFile(), 'utf8')) as object), ...members }),
  );
};
beforeEach(() => {
  folder = scratch();
});
afterEach(() => {
  folder[Symbol.dispose]();
});

test('is had by one alone, until it is given back', async () => {
  const lock = await lockForChange(repository(), 'vm', options);
  await expect(lockForChange(repository(), 'vm', options)).rejects.toMatchObject({ code: 'E_REPOSITORY_BUSY' });
  await expect(lockForChange(repository(), 'vm', options)).rejects.toThrow(/process \d+ of host .* \(backup run/);
  // Another VM's is another lock.
  await (await lockForChange(repository(), 'other', options))[Symbol.asyncDispose]();
  expect(await whoChanges(repository(), 'vm')).toContain(`process ${process.pid}`);
  await lock.check();
  await lock[Symbol.asyncDispose]();
  expect(await whoChanges(repository(), 'vm')).toBeUndefined();
  await (await lockForChange(repository(), 'vm', options))[Symbol.asyncDispose]();
});

test('of ten who want it at once one has it', async () => {
  const all = await Promise.allSettled(Array.from({ length: 10 }, () => lockForChange(repository(), 'vm', options)));
  expect(all.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
});

test.each([
  ['whose process has ended', { owner: { pid: 1, startTicks: '1', bootId: 'another', pidNamespace: '' } }],
  ['of another host, whose time is over', { host: 'elsewhere', expires: '2020-01-01T00:00:00.000Z' }],
])("one %s is nobody's", async (_what, members) => {
  const lost = await lockForChange(repository(), 'vm', options);
  change(members);
  const lock = await lockForChange(repository(), 'vm', options);
  await lock.check();
  await expect(lost.check()).rejects.toMatchObject({ code: 'E_REPOSITORY_BUSY' });
  // Who lost it does not take it from the one who has it.
  await lost[Symbol.asyncDispose]();
  await lock.check();
  await lock[Symbol.asyncDispose]();
});

test.each([
  ['of another host of the same name', { machine: 'another' }],
  ['of a host that has no id', { machine: '' }],
])('one %s is not taken as one whose process has ended', async (_what, members) => {
  await using lock = await lockForChange(repository(), 'vm', options);
  change({ ...members, owner: { pid: 1, startTicks: '1', bootId: 'another', pidNamespace: '' } });
  await expect(lockForChange(repository(), 'vm', options)).rejects.toMatchObject({ code: 'E_REPOSITORY_BUSY' });
  await lock.check();
  change({ expires: '2020-01-01T00:00:00.000Z' });
  await (await lockForChange(repository(), 'vm', options))[Symbol.asyncDispose]();
});

test('one of a newer format counts until its time is over, and the file is named', async () => {
  await using lock = await lockForChange(repository(), 'vm', options);
  await lock.check();
  change({ format: 2 });
  await expect(lockForChange(repository(), 'vm', options)).rejects.toThrow(lockFile());
  change({ expires: '2020-01-01T00:00:00.000Z' });
  await (await lockForChange(repository(), 'vm', options))[Symbol.asyncDispose]();
  writeFileSync(lockFile(), '{');
  await expect(lockForChange(repository(), 'vm', options)).rejects.toThrow(lockFile());
});

test('one of another host counts until its time is over', async () => {
  await using lock = await lockForChange(repository(), 'vm', options);
  change({ host: 'elsewhere', owner: { pid: 1, startTicks: '1', bootId: 'another', pidNamespace: '' } });
  await expect(lockForChange(repository(), 'vm', options)).rejects.toThrow(/of host elsewhere/);
  await lock.check();
});

test('readers keep what they read from being removed, and are waited for', async () => {
  const one = await lockForReading(repository(), 'vm', options);
  const two = await lockForReading(repository(), 'vm', options);
  await (await lockForChange(repository(), 'vm', options))[Symbol.asyncDispose]();
  await expect(waitForReaders(repository(), 'vm', options)).rejects.toMatchObject({ code: 'E_REPOSITORY_BUSY' });
  await one[Symbol.asyncDispose]();
  const waiting = waitForReaders(repository(), 'vm', { ...options, waitMs: 5000 });
  await two[Symbol.asyncDispose]();
  await waiting;
});
