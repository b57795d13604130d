// What ends a session while its requester's provider is inside a device-mapper section, over a fake freezer.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { spawn } from 'node:child_process';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CriticalSection } from '../../../../src/freeze/session/critical-section.js';
import { processStat } from '../../../../src/linux/process-stat.js';
import type { LocalSession } from '../../../../src/freeze/options.js';
import { FreezeHarness } from '../../../support/freeze-harness.js';

let harness: FreezeHarness;
beforeEach(() => {
  harness = new FreezeHarness();
});
afterEach(async () => {
  await harness[Symbol.asyncDispose]();
});

const request = { requester: 'test', leaseMs: 5_000, require: 'filesystem' } as const;
const frozen = async (freezerPath = '/bin/false'): Promise<LocalSession> =>
  await (await harness.start({}, { freezerPath })).freeze(request);

/** It goes on, whatever it waits for. */
async function waits(work: Promise<unknown>): Promise<void> {
  const first = await Promise.race([work.then(() => 'over'), sleep(200, 'waits')]);
  expect(first).toBe('waits');
}

describe('a session inside a critical section', () => {
  test('is ended by somebody else when the section is over, and not before', async () => {
    const session = await frozen();
    await session.critical(true, 5_000);
    const ending = session.breakOff('by root');
    await waits(ending);
    expect(harness.freezer.frozen).toHaveLength(2);
    await session.critical(false);
    expect(await ending).toMatchObject({ outcome: 'broken', error: 'by root', state: 'thawed' });
    expect(harness.freezer.frozen).toEqual([]);
  });

  test('is ended by somebody else after its bound, if nobody ends the section', async () => {
    const session = await frozen();
    await session.critical(true, 300);
    const started = performance.now();
    expect((await session.breakOff('its requester died')).outcome).toBe('broken');
    expect(performance.now() - started).toBeGreaterThan(280);
    expect(performance.now() - started).toBeLessThan(1_000);
  });

  test('is ended by somebody else once the process that was inside has ended, and not before', async () => {
    const session = await frozen();
    const worker = spawn('/bin/sleep', ['1000'], { stdio: 'ignore' });
    const { pid, startTime } = processStat(worker.pid ?? 0) ?? { pid: 0, startTime: '' };
    await session.critical(true, 60_000, { pid, startTime });
    const ending = session.breakOff('its requester died');
    await waits(ending);
    worker.kill('SIGKILL');
    expect((await ending).outcome).toBe('broken');
  });

  test('is thawed at once by its requester, who says by it that the section is over', async () => {
    const session = await frozen();
    await session.critical(true, 5_000);
    const started = performance.now();
    expect((await session.thaw()).outcome).toBe('ok');
    expect(performance.now() - started).toBeLessThan(1_000);
  });

  test('cannot begin another one, nor go on with this one, once an end waits', async () => {
    const session = await frozen();
    await session.critical(true, 5_000);
    const ending = session.breakOff('by root');
    await expect(session.critical(true, 60_000)).rejects.toThrow('its end waits for the end of a critical section');
    await session.critical(false);
    await ending;
    await expect(session.critical(true, 1_000)).rejects.toThrow('is not frozen any more: by root');
  });

  test('goes on with a new bound', async () => {
    const session = await frozen();
    await session.critical(true, 100);
    await session.critical(true, 5_000);
    await sleep(200);
    const ending = session.breakOff('by root');
    await waits(ending);
    await session.critical(false);
    await ending;
  });

  test('whose freezer dies is thawed by the marker when the section is over, and not before', async () => {
    const path = join(harness.dir, 'thaw-marked');
    writeFileSync(
      path,
      `#!/bin/sh\necho "$1" >>'${harness.journalPath}'\nrm -f '${join(harness.dir, 'run/frozen')}'\n`,
    );
    chmodSync(path, 0o755);
    writeFileSync(join(harness.dir, 'run/frozen'), 'fsfreeze-bridge 1 0 0 x -\n');
    const session = await frozen(path);
    await session.critical(true, 5_000);
    harness.freezer.die();
    await waits(session.ended);
    expect(harness.journal).not.toContain('--thaw-marked');
    // The requester hears that the freezer is gone, and its section is over all the same.
    await expect(session.critical(false)).rejects.toThrow();
    expect((await session.ended).outcome).toBe('broken');
    expect(harness.journal).toContain('--thaw-marked');
  });

  test('holds up the end of the process, within its bound', async () => {
    const coordinator = await harness.start();
    const session = await coordinator.freeze(request);
    await session.critical(true, 300);
    const started = performance.now();
    await coordinator.close();
    expect(performance.now() - started).toBeGreaterThan(280);
    expect((await session.ended).outcome).toBe('broken');
  });
});

test('where nothing is frozen a section changes nothing', async () => {
  const coordinator = await harness.start();
  const session = await coordinator.freeze({ ...request, require: 'plain', mountpoints: ['/proc/no'] });
  await session.critical(true, 60_000);
  expect((await session.breakOff('by root')).outcome).toBe('broken');
});

test('a section that is ended twice, or never begun, holds up nobody', async () => {
  const section = new CriticalSection();
  section.end();
  section.begin(60_000);
  section.end();
  section.end();
  expect(section.close()).toBeUndefined();
  expect(section.isClosed).toBe(true);
  await section.close();
});
