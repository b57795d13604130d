// How a tree that is shown comes to its end. Nothing is cut, so that no agent is asked, and nothing is mounted.
import { mkdirSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { SnapshotMachine } from '../../../src/snapshot/machine.js';
import type { Run } from '../../../src/snapshot/program.js';
import { runTree } from '../../../src/snapshot/run-tree.js';
import { scratch, type Scratch } from '../../support/scratch.js';

let folder: Scratch;
let machine: SnapshotMachine;
beforeEach(() => {
  folder = scratch();
  mkdirSync(folder.path('target'));
  const run: Run = async ([program]) =>
    await Promise.resolve({ exitCode: program === 'mountpoint' ? 1 : 0, stdout: '', stderr: '' });
  machine = new SnapshotMachine({
    look: async () => await Promise.reject(new Error('nothing is looked at')),
    run,
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

/** `whenReady`: called once all is there. */
async function shown(isDetached: boolean, whenReady: (abort: AbortController, letGo: () => void) => void) {
  const abort = new AbortController();
  let letGo = (): void => undefined;
  const released = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  const request = {
    paths: ['/srv'],
    target: folder.path('target'),
    leaseMs: 1_000,
    require: 'none' as const,
    agentSocket: undefined,
    isDetached,
    abort: abort.signal,
    onReady: () => {
      setImmediate(() => {
        whenReady(abort, letGo);
      });
    },
  };
  await runTree(machine, { run: 'r1', sources: [], snapshots: [] }, request, released);
}

test('a caller that lets go is a good end, and a signal is none: the tree was taken from under its reader', async () => {
  await shown(false, (_, letGo) => {
    letGo();
  });
  const signal = shown(false, (abort) => {
    abort.abort();
  });
  await expect(signal).rejects.toMatchObject({ code: 'E_INTERRUPTED', message: /^a signal came: the tree was taken/ });
  expect(machine.journal.runs()).toEqual([]);
});

test('one that is let go by name ends well by the signal of whoever has noted that', async () => {
  const released = (): void => {
    const record = machine.journal.read('r1');
    if (record !== undefined) machine.journal.update({ ...record, state: 'ending' });
  };
  await shown(true, (abort) => {
    released();
    abort.abort();
  });
  const plain = shown(true, (abort) => {
    abort.abort();
  });
  await expect(plain).rejects.toMatchObject({ code: 'E_INTERRUPTED' });
});

test('a folder that is not empty is refused before anything is made', async () => {
  writeFileSync(folder.path('target/x'), '');
  await expect(shown(false, () => undefined)).rejects.toThrow('expected an empty folder, found 1 entries');
  expect(machine.journal.runs()).toEqual([]);
});
