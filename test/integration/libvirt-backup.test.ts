// Backups of libvirt domains: libvirt's own jobs, checkpoints and bitmaps, by a real libvirtd. Every run is restored, by the
// tool and by the line in its manifest, and compared byte for byte with what the disks held at its cut.
import { readdirSync, statSync } from 'node:fs';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { BackedUpDomain, type DomainDisk } from '../support/backed-up-domain.js';
import { LibvirtHost } from '../support/libvirt.js';
import { requires } from '../support/requires.js';

let host: LibvirtHost;
beforeAll(async () => {
  host = await LibvirtHost.start();
});
afterAll(async () => {
  await host[Symbol.asyncDispose]();
});

const two: readonly DomainDisk[] = [
  { target: 'vda', format: 'qcow2', megabytes: 32 },
  { target: 'vdb', format: 'qcow2', megabytes: 16 },
];

requires(
  'root',
  'libvirtd',
  'virsh',
  'qemu-system-x86_64',
  'qemu-img',
)('backups of a libvirt domain', () => {
  // libvirt asks QEMU anew for what it can do when either is new.
  vi.setConfig({ testTimeout: 120_000 });

  test('a full run and increments are each what the disks held at their cut', async () => {
    await using vm = await BackedUpDomain.start(host, 'chain', [
      ...two,
      { target: 'vdc', format: 'raw', megabytes: 8 },
    ]);
    await vm.write('vda', 1, 0, 2048);
    await vm.write('vdb', 2, 64, 1024);
    await vm.write('vdc', 3, 0, 512);
    const full = await vm.run();
    expect(full.error.message).toBe('none');
    expect(full).toMatchObject({ code: 0, made: { level: 'crash', number: 1 } });
    expect(full.made.disks.map(({ id, kind, why }) => [id, kind, why])).toEqual([
      ['vda', 'full', 'no earlier run is there'],
      ['vdb', 'full', 'no earlier run is there'],
      ['vdc', 'full', 'no earlier run is there'],
    ]);
    expect(full.made.saved.map(({ name }) => name)).toEqual(['domain.xml', 'domain-inactive.xml']);
    await vm.write('vda', 4, 512, 64);
    await vm.write('vdb', 5, 128, 128);
    const second = await vm.run();
    expect(second.error.message).toBe('none');
    expect(second.made.disks.map(({ kind, copiedBytes, base }) => [kind, copiedBytes / 1024, base?.run])).toEqual([
      ['incremental', 64, full.made.run],
      ['incremental', 128, full.made.run],
      ['full', 8192, undefined],
    ]);
    expect(second.made.disks[2]?.why).toBe('no checkpoint can be kept of it: its image is no qcow2 (version 3)');
    expect(statSync(vm.stored(second.made.run, 'vda.qcow2')).blocks * 512).toBeLessThan(600 * 1024);
    await vm.write('vda', 6, 1024, 256);
    const third = await vm.run('--disk', 'vda', '--incremental');
    expect(third.error.message).toBe('none');
    const runs = [full, second, third].map(({ made }) => made.run);
    expect(await vm.listed()).toEqual(runs);
    for (const run of runs) expect(await vm.differences(run)).toEqual([]);
    expect(await vm.backup('verify')).toMatchObject({
      code: 0,
      json: { runs: runs.map((run) => ({ run, problems: [] })) },
    });
    expect((await vm.checkpoints()).sort()).toEqual(runs.map((run) => `fsb-${full.made.repository}-${run}`).sort());
    expect(await vm.qmp('query-jobs')).toEqual([]);
    expect(readdirSync(await vm.domain.state())).toEqual(['vm.json']);
  });
});
