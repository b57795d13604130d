// What whoever lets a run go is told. The holder is a process that ends by the signal.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { releaseRun } from '../../../../src/cli/snapshot/runs.js';
import { stopSnapshot } from '../../../../src/cli/snapshot/start-stop.js';
import { processNote, type RunRecord } from '../../../../src/snapshot/journal.js';
import { SnapshotMachine } from '../../../../src/snapshot/machine.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

let folder: Scratch;
let machine: SnapshotMachine;
beforeEach(() => {
  folder = scratch();
  mkdirSync(folder.path('snapshots'));
  machine = new SnapshotMachine({
    look: async () => await Promise.reject(new Error('nothing is looked at')),
    run: async () => await Promise.resolve({ exitCode: 1, stdout: '', stderr: '' }),
    providers: [],
    runtimeDir: folder.path('.'),
    agentSocket: undefined,
    self: ['/bin/true'],
    note: () => undefined,
  });
});
afterEach(() => {
  folder[Symbol.dispose]();
});

function begin(run: string, over: Partial<RunRecord> = {}): void {
  machine.journal.begin({
    run,
    kind: 'tree',
    state: 'held',
    isDetached: true,
    holder: { pid: 2 ** 22 - 1, startTime: '1' },
    begun: '2026-01-01T00:00:00.000Z',
    paths: ['/srv'],
    evidence: [],
    sources: [],
    snapshots: [],
    mounts: [],
    ...over,
  });
}

test('a holder learns from the notes that it is let go, and not ended by just anybody', async () => {
  const child = spawn('/bin/sleep', ['1000'], { stdio: 'ignore' });
  const ended = once(child, 'exit');
  begin('r1', { holder: processNote(child.pid ?? 0) });
  const releasing = releaseRun(machine, 'r1');
  expect(machine.journal.read('r1')?.state).toBe('ending');
  await releasing;
  expect(await ended).toEqual([null, 'SIGTERM']);
  expect(machine.journal.runs()).toEqual([]);
});

test('a loss is told to whoever stops, once, after all runs are released', async () => {
  begin('r1', { state: 'lost', lost: 'its room was used up' });
  begin('r2');
  const stopping = stopSnapshot(machine);
  await expect(stopping).rejects.toMatchObject({
    code: 'E_SNAPSHOT_LOST',
    message: 'what was read of run r1 is not to be relied on: its room was used up',
  });
  expect(machine.journal.runs()).toEqual([]);
  await expect(stopSnapshot(machine)).rejects.toMatchObject({ code: 'E_NO_RUN' });
});
