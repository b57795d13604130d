import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import type { Readable } from 'node:stream';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { explainTakenPort, hasStuckPredecessor, holderOf } from '../../../src/agent/taken-port.js';
import { UnreachableError, UsageError } from '../../../src/errors.js';
import { requires } from '../../support/requires.js';
import { scratch, type Scratch } from '../../support/scratch.js';

let folder: Scratch;
beforeEach(() => {
  folder = scratch();
  writeFileSync(folder.path('vport1p1'), '');
  // As udev names it.
  symlinkSync(folder.path('vport1p1'), folder.path('port'));
});
afterEach(() => {
  folder[Symbol.dispose]();
});

const busy = () => new UnreachableError('E_PORT', 'EBUSY', { facts: { path: folder.path('port'), errno: 'EBUSY' } });

test('names who has a port that is taken, and is an error that no start anew will mend', async () => {
  const port = openSync(folder.path('vport1p1'), 'r+');
  const holder = spawn('/bin/sh', ['-c', 'echo on; read x'], { stdio: ['pipe', 'pipe', 'ignore', port] });
  closeSync(port);
  try {
    await once(holder.stdout as Readable, 'data');
    expect(holderOf(folder.path('port'))).toEqual({ pid: holder.pid, name: 'sh' });
    const error = explainTakenPort(busy());
    expect(error).toBeInstanceOf(UsageError);
    expect(String(error)).toContain(`${folder.path('port')} is taken by sh (process ${holder.pid}): end it`);
  } finally {
    holder.kill('SIGKILL');
    await once(holder, 'exit');
  }
});

test('leaves an error alone where nobody is found, the port is gone, or that is another', () => {
  const error = busy();
  expect(explainTakenPort(error)).toBe(error);
  rmSync(folder.path('vport1p1'));
  expect(explainTakenPort(error)).toBe(error);
  const other = new UsageError('E_CONFIG', 'a typo');
  expect(explainTakenPort(other)).toBe(other);
});

requires('gcc')('an agent that was killed', () => {
  test('and of which one thread hangs is seen as stuck, though its first thread is a zombie that names no program', async () => {
    const program = folder.path('agent');
    writeFileSync(
      folder.path('agent.c'),
      `#include <pthread.h>
      #include <unistd.h>
      static void *hang(void *none) { char c; write(1, "on", 2); read(0, &c, 1); _exit(0); }
      int main(void) { pthread_t t; pthread_create(&t, 0, hang, 0); pthread_exit(0); }`,
    );
    execFileSync('gcc', ['-w', '-pthread', '-o', program, folder.path('agent.c')]);
    const agent = spawn(program, { stdio: ['pipe', 'pipe', 'ignore'] });
    try {
      await once(agent.stdout, 'data');
      await expect.poll(() => readFileSync(`/proc/${agent.pid}/stat`, 'utf8')).toMatch(/^\d+ \(agent\) Z/);
      expect(hasStuckPredecessor(program)).toBe(true);
      expect(hasStuckPredecessor(folder.path('another'))).toBe(false);
    } finally {
      agent.kill('SIGKILL');
      await once(agent, 'exit');
    }
    expect(hasStuckPredecessor(program)).toBe(false);
  });
});
