// What a dead agent left: how it is released, test/integration/writer-recovery.test.ts.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { recoverSessions } from '../../../../src/freeze/session/recovery.js';
import { findWriters } from '../../../../src/freeze/writers/folders.js';
import { SessionRecord } from '../../../../src/freeze/writers/record.js';
import { FreezeHarness } from '../../../support/freeze-harness.js';

const openFiles = (): number => readdirSync('/proc/self/fd').length;

test('nobody looks any more after what a writer left running when it was released', async () => {
  await using harness = new FreezeHarness();
  await harness.restartFreezer();
  const pid = join(harness.dir, 'pid');
  harness.hook('w', `[ "$1" != thaw ] || { sleep 600 & echo $! >'${pid}'; }`);
  const head = { session: 's1', requester: 'test', leaseMs: 1_000, mountpoints: [] };
  const record = SessionRecord.create(join(harness.dir, 'run'), head);
  record.noteStarted(findWriters(harness.folders).map((writer) => ({ writer, limitMs: 5_000 })));
  const path = join(record.dir, 'head.json');
  writeFileSync(path, readFileSync(path, 'utf8').replace(/"startTime":"\d+"/, '"startTime":"1"'));
  record.noteEnded();
  const before = openFiles();
  try {
    expect(await recoverSessions(harness.options)).toMatchObject([{ writers: [{ name: 'w', released: true }] }]);
    await expect.poll(openFiles).toBeLessThanOrEqual(before);
  } finally {
    process.kill(Number(readFileSync(pid, 'utf8')), 'SIGKILL');
  }
});
