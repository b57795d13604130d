// Backups of a real guest: a PostgreSQL under load, with its WAL on another disk than its data, is backed up in full and
// then incrementally, and each run is restored, booted and compared with what its clients remember.
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, expect, test } from 'vitest';
import type { RunManifest } from '../../src/host/repository/run-manifest.js';
import { amcheckFaults, bootCut, compareContents, refusalOf } from '../../vm-images/demo/database.js';
import { startLoad, type Load } from '../../vm-images/demo/load.js';
import { agentGuest, agentState, bridge, bridgeResult, toolProcess } from '../support/agent-guest.js';
import { requires } from '../support/requires.js';

const BUILD_LIMIT_MS = 500_000;

async function moreTransactions(load: Load, count: number): Promise<void> {
  const goal = load.transactions.length + count;
  while (load.transactions.length < goal) await sleep(20);
}

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'mmdebstrap',
)('backups of a guest', () => {
  beforeAll(agentState, BUILD_LIMIT_MS);

  test('hold what was acknowledged before their freeze, and nothing from after the thaw', async () => {
    await using guest = await agentGuest();
    const repository = path.join(guest.dir, 'repository');
    const load = await startLoad(guest.postgresPort, 4);
    const runs: RunManifest[] = [];
    for (const mode of ['--full', '--incremental', '--incremental']) {
      await moreTransactions(load, 300);
      const made = await bridge(guest, ['backup', 'run', '--to', repository, mode, '--require', 'application']);
      expect(made).toMatchObject({ exitCode: 0, json: { level: 'application', completion: { outcome: 'ok' } } });
      runs.push(made.json as RunManifest);
    }
    await moreTransactions(load, 100);
    await load.stop();
    const sizes = runs.map(({ disks }) => disks.reduce((sum, { copiedBytes }) => sum + copiedBytes, 0));
    expect(Math.max(...sizes.slice(1))).toBeLessThan((sizes[0] ?? 0) / 4);
    const verified = await bridgeResult(toolProcess(['backup', 'verify', '--repo', repository]));
    expect(verified).toMatchObject({ exitCode: 0 });

    for (const [index, { run, timings, disks }] of runs.entries()) {
      const target = path.join(guest.dir, `restored-${index}`);
      const restored = await bridgeResult(toolProcess(['backup', 'restore', run, target, '--from', repository]));
      expect(restored).toMatchObject({ exitCode: 0 });
      const image = (serial: string) => {
        const disk = disks.find((each) => each.serial === serial);
        return { file: path.join(target, disk?.file.name ?? ''), format: 'qcow2' as const };
      };
      await using booted = await bootCut({ root: image('root'), data: image('data') });
      expect(await refusalOf(booted)).toBeUndefined();
      const { freezeRequestedMs = NaN, thawAnsweredMs = NaN } = timings.marks;
      const known = await compareContents(booted.postgresPort, load.transactions, freezeRequestedMs, thawAnsweredMs);
      expect(known).toMatchObject({ missing: 0, foreign: 0 });
      expect(known.acknowledgedBefore).toBeGreaterThanOrEqual(300 * (index + 1));
      expect(await amcheckFaults(booted)).toBe('');
    }
  }, 900_000);
});
