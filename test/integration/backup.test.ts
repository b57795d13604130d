// Backups of a real QEMU: real jobs, bitmaps and images. Every run is restored and compared, byte for byte, with what the
// disks held at the instant of its cut. The guest is none, so its agent is a fixture.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { afterEach, expect, test } from 'vitest';
import type { BareDisk } from '../support/bare-qemu.js';
import { BackupHarness } from '../support/backup-harness.js';
import { requires } from '../support/requires.js';

let vm: BackupHarness;
afterEach(async () => {
  await vm[Symbol.asyncDispose]();
});

const two: readonly BareDisk[] = [
  { name: 'root0', format: 'raw' },
  { name: 'data0', format: 'qcow2', discard: true },
];
const start = async (disks: readonly BareDisk[] = two): Promise<void> => {
  vm = await BackupHarness.start(disks);
};

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('backups of a real QEMU', () => {
  test('a full run and increments are each what the disks held at their cut', async () => {
    await start();
    await vm.write('root0', 1, 0, 512);
    await vm.write('data0', 2, 64, 1024);
    const full = await vm.run();
    expect(full.error.message).toBe('none');
    expect(full.code).toBe(0);
    expect(full.made).toMatchObject({ level: 'filesystem', number: 1 });
    expect(full.made.disks.map(({ kind, why }) => [kind, why])).toEqual([
      ['full', 'no earlier run is there'],
      ['full', 'no earlier run is there'],
    ]);
    const { freezeRequestedMs = NaN, thawAnsweredMs = NaN } = full.made.timings.marks;
    const between = full.made.monitorLog.filter(
      ({ sentMs }) => sentMs >= freezeRequestedMs && sentMs <= thawAnsweredMs,
    );
    expect(between.map(({ command }) => command)).toEqual(['transaction']);
    expect(full.made.saved).toMatchObject([{ name: 'machine.json', copied: 'before the cut' }]);
    expect(JSON.parse(readFileSync(vm.stored(full.made.run, 'machine.json'), 'utf8'))).toMatchObject({
      ...{ format: 1, arch: 'x86_64', cpus: 1, flash: [] },
      disks: [
        { id: 'root0', model: 'virtio-blk-device', controller: 'virtio-blk-pci' },
        { id: 'data0', model: 'virtio-blk-device', controller: 'virtio-blk-pci' },
      ],
    });

    await vm.write('data0', 3, 128, 64);
    await vm.discard('data0', 512, 256);
    const second = await vm.run();
    expect(second.error.message).toBe('none');
    expect(second.made.disks.map(({ kind, copiedBytes, base }) => [kind, copiedBytes / 1024, base?.run])).toEqual([
      ['incremental', 0, full.made.run],
      ['incremental', 320, full.made.run],
    ]);
    // What was discarded is not in it, though its bitmap has it.
    expect(statSync(vm.stored(second.made.run, 'data0.qcow2')).blocks * 512).toBeLessThan(64 * 1024 + 400 * 1024);

    await vm.write('root0', 4, 1024, 128);
    await vm.write('data0', 5, 128, 32);
    const third = await vm.run('--incremental');
    expect(third.error.message).toBe('none');
    const runs = [full, second, third].map(({ made }) => made.run);
    expect(await vm.listed()).toEqual(runs);
    for (const run of runs) {
      expect(await vm.differences(run)).toEqual([]);
      expect(await vm.differencesByHand(run)).toEqual([]);
    }
    const verified = await vm.backup('verify');
    expect(verified).toMatchObject({ code: 0, json: { runs: runs.map((run) => ({ run, problems: [] })) } });
    // Only to be read, and nothing else is left.
    const files = readdirSync(vm.stored(third.made.run));
    expect(files.sort()).toEqual(['data0.qcow2', 'machine.json', 'manifest.json', 'root0.qcow2']);
    for (const file of files) expect(statSync(vm.stored(third.made.run, file)).mode & 0o777).toBe(0o440);
    expect(await vm.at.jobs()).toEqual([]);
    expect(await vm.at.ourNodes()).toEqual([]);
    expect(readdirSync(vm.at.state())).toEqual(['vm.json']);
  });

  test('what the guest writes while it is copied is not in the run, and is in the next', async () => {
    await start();
    for (let at = 0; at < 16; at++) await vm.write('data0', at + 1, at * 1024, 1024);
    const work = vm.run('--limit', '4');
    await expect.poll(async () => (await vm.at.jobs()).length, { timeout: 20_000 }).toBe(2);
    for (let at = 0; at < 16; at++) await vm.write('data0', 200 + at, at * 1024 + 512, 64);
    const full = await work;
    expect(full.error.message).toBe('none');
    const next = await vm.run();
    expect(next.made.disks[1]?.copiedBytes).toBe(16 * 64 * 1024);
    for (const { made } of [full, next]) expect(await vm.differences(made.run)).toEqual([]);
  });

  test('tells the guest when the run is there', async () => {
    await start();
    vm.at.agent.completion = { writers: [] };
    const { made, json } = await vm.run();
    const asked = vm.at.agent.log.findLast(({ command }) => command === 'bridge-complete');
    expect(asked?.args).toEqual({ session: made.guest?.session, outcome: 'ok' });
    expect(json['completion']).toEqual({ outcome: 'ok', writers: [] });
    const manifest = JSON.parse(readFileSync(vm.stored(made.run, 'manifest.json'), 'utf8')) as object;
    expect(manifest).not.toHaveProperty('completion');
  });
});
