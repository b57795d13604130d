// An agent finds sessions of a dead one at its start, and then owes the host an error. Sessions of dead processes are made by hand.
import { afterEach, beforeEach, expect, test } from 'vitest';
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { lateThawNote } from '../../../src/agent/late-thaw-note.js';
import { recoverPredecessor } from '../../../src/agent/recovery.js';
import { createLogger } from '../../../src/log.js';
import { FreezeHarness } from '../../support/freeze-harness.js';

let harness: FreezeHarness;
let runtimeDir: string;
const { log } = createLogger('silent');
beforeEach(() => {
  harness = new FreezeHarness();
  runtimeDir = join(harness.dir, 'run');
});
afterEach(async () => {
  await harness[Symbol.asyncDispose]();
});

function deadSession(id: string, lines: readonly object[] = []): void {
  const dir = join(runtimeDir, 'sessions', id);
  mkdirSync(dir, { recursive: true });
  const head = {
    version: 1,
    session: id,
    requester: 'r',
    pid: 999_999_999,
    startTime: '1',
    leaseMs: 1,
    mountpoints: [],
  };
  writeFileSync(join(dir, 'head.json'), JSON.stringify(head));
  writeFileSync(join(dir, 'writers'), lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
}

test('owes the host nothing if nothing was left', async () => {
  expect(await recoverPredecessor(harness.options, log)).toEqual({});
  expect(lateThawNote(runtimeDir).read()).toBeUndefined();
});

test('owes the host an error for a session whose process died, until it was told', async () => {
  deadSession('s1');
  await recoverPredecessor(harness.options, log);
  expect(readdirSync(join(runtimeDir, 'sessions'))).toEqual([]);
  expect(lateThawNote(runtimeDir).read()).toBe(
    'the agent died while the guest was held: the snapshot is not consistent',
  );
  // A second death does not forgive it.
  await recoverPredecessor(harness.options, log);
  expect(lateThawNote(runtimeDir).read()).toContain('the agent died');
});

test('owes nothing for a session that had ended, kept for a writer that could not be released', async () => {
  deadSession('s1', [{ event: 'ended' }]);
  await recoverPredecessor(harness.options, log);
  expect(existsSync(join(runtimeDir, 'owed'))).toBe(false);
});

test('says when what may still be frozen is thawed', async () => {
  const marker = join(runtimeDir, 'frozen');
  writeFileSync(marker, 'fsfreeze-bridge 1 999999999 1 s1 -\nfrozen 30 254:0 /\n');
  deadSession('s1');
  const { thawed } = await recoverPredecessor(harness.options, log);
  let isThawed = false;
  void thawed?.then(() => {
    isThawed = true;
  });
  await new Promise((resolve) => setTimeout(resolve, 700));
  expect(isThawed).toBe(false);
  expect(lateThawNote(runtimeDir).read()).toContain('the agent died');
  rmSync(marker);
  await thawed;
});

test('does not wait for what an idle freezer still thaws: it hangs, and is in nobody’s way', async () => {
  await harness.start();
  const left = join(runtimeDir, 'frozen.left-999999999-1');
  writeFileSync(left, 'fsfreeze-bridge 1 999999999 1 s1 -\nfrozen 30 254:0 /data\n');
  expect(await recoverPredecessor(harness.options, log)).toEqual({});
  rmSync(left);
});
