// What a libvirt domain without a guest does not come to, by a scripted virsh and monitor: a VM that QEMU paused, since a write
// of its guest failed, and a checkpoint that libvirt does not delete.
import { beforeEach, expect, test } from 'vitest';
import { LibvirtBackups } from '../../../../../src/host/vm/libvirt/backups.js';
import type { LibvirtMonitor } from '../../../../../src/host/vm/libvirt/monitor.js';
import { VirshError, type Virsh } from '../../../../../src/host/vm/libvirt/virsh.js';

let status: string;
/** What is asked of virsh that changes something. */
let acts: string[];
let isJob: boolean;
let resumedTo: string;
const target = { node: 'to', jobId: 'job', file: '/repo/vda.qcow2' };
const xml = `<domainbackup><disks><disk name='vda'><target file='${target.file}'/></disk></disks></domainbackup>`;

const virsh = {
  where: 'libvirt domain x',
  run: (command: string, words: readonly string[]): Promise<string> => {
    if (command === 'backup-dumpxml') {
      if (isJob) return Promise.resolve(xml);
      return Promise.reject(new VirshError('x', 'backup-dumpxml', 'no domain backup job present', 'none'));
    }
    if (command === 'checkpoint-list') return Promise.resolve('one\ntwo\n');
    if (command === 'dumpxml') return Promise.resolve('<domain><devices><emulator>/x</emulator></devices></domain>');
    acts.push(command);
    if (command === 'checkpoint-delete' && words.includes('one')) {
      return Promise.reject(new VirshError('x', command, 'Failed to get "write" lock', 'none'));
    }
    if (command === 'domjobabort') isJob = false;
    if (command === 'resume') status = resumedTo;
    return Promise.resolve('');
  },
} as unknown as Virsh;
const monitor = {
  execute: (command: string) => Promise.resolve(command === 'query-status' ? { status, running: false } : []),
} as unknown as LibvirtMonitor;
const end = async (pausedBefore?: boolean) => await new LibvirtBackups(virsh, monitor).end([target], pausedBefore);

beforeEach(() => {
  status = 'io-error';
  acts = [];
  isJob = false;
  resumedTo = 'running';
});

test('a VM that was paused is continued by recover, though its job failed and is gone', async () => {
  expect(await end(false)).toBe('continued');
  expect(acts).toEqual(['resume']);
});

test('is continued when its job was ended', async () => {
  isJob = true;
  expect(await end(false)).toBe('continued');
  expect(acts).toEqual(['domjobabort', 'resume']);
});

test('is told of if it pauses again', async () => {
  resumedTo = 'io-error';
  expect(await end(false)).toBe('still-paused');
});

test('stays as it was if it was paused before, or nothing tells', async () => {
  expect(await end(true)).toBeUndefined();
  expect(await end()).toBeUndefined();
  expect(acts).toEqual([]);
  // An older journal does not tell; a job that is there does.
  isJob = true;
  expect(await end()).toBe('continued');
});

test('one that somebody else paused stays so', async () => {
  status = 'paused';
  expect(await end(false)).toBeUndefined();
  expect(acts).toEqual([]);
});

test('a checkpoint that libvirt does not delete is told of when the others are gone', async () => {
  const drop = new LibvirtBackups(virsh, monitor).dropCheckpoints(() => true);
  await expect(drop).rejects.toThrow('x, virsh checkpoint-delete: Failed to get "write" lock');
  expect(acts).toEqual(['checkpoint-delete', 'checkpoint-delete']);
});
