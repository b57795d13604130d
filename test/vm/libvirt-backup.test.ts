// Backups of a libvirt domain with a real guest: PostgreSQL under load on five disks. An increment is restored, booted and
// compared with what its clients were told; and the tool boots it itself, as libvirt had it.
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { RunManifest } from '../../src/host/repository/run-manifest.js';
import { guestImage } from '../../src/testing/image.js';
import { bootCut, compareContents, refusalOf } from '../../vm-images/demo/database.js';
import { startLoad } from '../../vm-images/demo/load.js';
import { acknowledge } from '../support/acknowledge.js';
import { bridgeResult, toolProcess } from '../support/agent-guest.js';
import { domainBridge } from '../support/libvirt-bridge.js';
import { DISK_NAMES } from '../support/libvirt-domain.js';
import { domainState, startDomain } from '../support/libvirt-state.js';
import { LIBVIRT_NEEDS, LibvirtHost } from '../support/libvirt.js';
import { requires } from '../support/requires.js';

const BUILD_LIMIT_MS = 600_000;
/** Of a guest that the tool boots, where others use the processors as well. */
const BOOT_LIMIT_MS = 400_000;
let host: LibvirtHost;
beforeAll(async () => {
  await domainState('ours');
  host = await LibvirtHost.start();
}, BUILD_LIMIT_MS);
afterAll(async () => {
  await host[Symbol.asyncDispose]();
});

requires(...LIBVIRT_NEEDS)('backups of a libvirt domain under load', () => {
  test('it is held for backup-begin alone; the increment holds what was acknowledged, and boots by itself', async () => {
    await using domain = await startDomain(host, 'ours');
    await domain.exec(['/bin/systemctl', 'enable', (await guestImage()).postgresql.unit]);
    const repository = path.join(domain.dir, 'repository');
    const backup = async (): Promise<RunManifest> => {
      const words = ['backup', 'run', '--to', repository, '--require', 'application'];
      const { exitCode, json, stderr } = await domainBridge(domain, ...words);
      expect([exitCode, stderr]).toEqual([0, expect.anything()]);
      return json as RunManifest;
    };
    const load = await startLoad(await domain.postgresPort(), 2);
    await acknowledge(load, 50);
    const full = await backup();
    await acknowledge(load, 50);
    const next = await backup();
    await acknowledge(load, 20);
    await load.stop();
    expect(full).toMatchObject({ level: 'application', guest: { outcome: 'ok' } });
    expect(next.level).toBe('application');
    expect(next.disks.map(({ base }) => base?.run)).toEqual(DISK_NAMES.map(() => full.run));
    const { freezeAnsweredMs = NaN, freezeRequestedMs = NaN, thawAnsweredMs = NaN } = next.timings.marks;
    const meanwhile = next.monitorLog.filter(({ sentMs }) => sentMs >= freezeAnsweredMs && sentMs <= thawAnsweredMs);
    expect(meanwhile.map(({ command }) => command)).toEqual(['backup-begin']);
    const restored = path.join(domain.dir, 'restored');
    const restore = ['backup', 'restore', next.run, restored, '--repo', repository];
    expect((await bridgeResult(toolProcess(restore))).exitCode).toBe(0);
    const image = (index: number) => {
      return { file: path.join(restored, next.disks[index]?.file.name ?? ''), format: 'qcow2' as const };
    };
    const verify = ['backup', 'verify', next.run, '--boot', '--no-sums', '--accel', 'tcg', '--scratch', domain.dir];
    const verified = bridgeResult(toolProcess([...verify, '--repo', repository], { timeoutMs: BOOT_LIMIT_MS }));
    await using booted = await bootCut({ root: image(0), data: image(1) });
    expect(await refusalOf(booted)).toBeUndefined();
    const contents = await compareContents(booted.postgresPort, load.transactions, freezeRequestedMs, thawAnsweredMs);
    expect(contents).toMatchObject({ missing: 0, foreign: 0 });
    expect(contents.acknowledgedBefore).toBeGreaterThanOrEqual(100);
    // As libvirt had it: from its kernel, the five disks where they were, the agent's port.
    expect(await verified).toMatchObject({
      exitCode: 0,
      json: { runs: [{ boot: { checks: [{ what: 'filesystems' }, { what: 'writers' }], problems: [] } }] },
    });
  }, 900_000);
});
