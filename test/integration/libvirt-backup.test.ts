// Backups of libvirt domains: libvirt's own jobs, checkpoints and bitmaps, by a real libvirtd. Every run is restored, by the
// tool and by the line in its manifest, and compared byte for byte with what the disks held at its cut.
import { readdirSync, statSync } from 'node:fs';
import { execa } from 'execa';
import { expect, test, vi } from 'vitest';
import { BackedUpDomain, twoDisks } from '../support/backed-up-domain.js';
import { requires } from '../support/requires.js';
import { BARE_DOMAIN_NEEDS, sharedLibvirt } from '../support/shared-libvirt.js';

const host = sharedLibvirt();

requires(...BARE_DOMAIN_NEEDS)('backups of a libvirt domain', () => {
  // libvirt asks QEMU anew for what it can do when either is new.
  vi.setConfig({ testTimeout: 120_000 });

  test('a full run and increments are each what the disks held at their cut', async () => {
    await using vm = await BackedUpDomain.start(host(), 'chain', [
      ...twoDisks,
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
    expect(full.made.saved.map(({ name }) => name)).toEqual(['domain.xml', 'domain-inactive.xml', 'machine.json']);
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
    for (const run of runs) {
      expect(await vm.differences(run)).toEqual([]);
    }
    expect(await vm.differencesByHand(second.made.run)).toEqual([]);
    expect(await vm.backup('verify')).toMatchObject({
      code: 0,
      json: { runs: runs.map((run) => ({ run, problems: [] })) },
    });
    expect((await vm.checkpoints()).sort()).toEqual(runs.map((run) => `fsb-${full.made.repository}-${run}`).sort());
    expect(await vm.qmp('query-jobs')).toEqual([]);
    expect(readdirSync(await vm.domain.state())).toEqual(['vm.json']);
  });

  test('what libvirt lost of a checkpoint it gets back, one without a record is taken off its list, and others stay', async () => {
    await using vm = await BackedUpDomain.start(host(), 'records', twoDisks);
    await vm.write('vda', 1, 0, 2048);
    const full = await vm.run();
    const prefix = `fsb-${full.made.repository}-`;
    await vm.domain.virsh('checkpoint-create-as', 'theirs');
    await vm.write('vda', 2, 256, 64);
    const second = await vm.run();
    expect(second.made.disks[0]?.otherBitmaps).toEqual(['theirs']);
    // As after `undefine --checkpoints-metadata`, and a definition of the same domain.
    for (const { made } of [full, second])
      await vm.domain.virsh('checkpoint-delete', `${prefix}${made.run}`, '--metadata');
    await vm.write('vda', 3, 512, 64);
    const third = await vm.run('--keep-checkpoints', '2');
    expect(third.error.message).toBe('none');
    expect(third.made.disks.map(({ base }) => base?.run)).toEqual([second.made.run, second.made.run]);
    // Two of one second have no order.
    const there = [`${prefix}${second.made.run}`, `${prefix}${third.made.run}`, 'theirs'];
    expect((await vm.checkpoints()).sort()).toEqual(there.sort());
    const began = /<creationTime>(\d+)</.exec(
      await vm.domain.virsh('checkpoint-dumpxml', `${prefix}${second.made.run}`),
    );
    expect(Number(began?.[1])).toBe(Math.floor(Date.parse(second.made.createdAt) / 1000));

    // Behind libvirt's back: a record is gone, on one disk, then on both.
    await vm.remove('vda', `${prefix}${third.made.run}`);
    await vm.write('vda', 4, 1024, 64);
    await vm.write('vdb', 4, 1024, 64);
    const fourth = await vm.run('--incremental');
    expect(fourth.made.disks.map(({ base }) => base?.run)).toEqual([second.made.run, third.made.run]);
    for (const { target } of twoDisks) await vm.remove(target, `${prefix}${fourth.made.run}`);
    await vm.write('vdb', 5, 2048, 64);
    const fifth = await vm.run();
    expect(fifth.made.disks.map(({ base }) => base?.run)).toEqual([second.made.run, third.made.run]);
    expect(await vm.checkpoints()).not.toContain(`${prefix}${fourth.made.run}`);

    // QEMU is killed: what it had not stored is no base, and it is said why.
    await vm.kill();
    await vm.domain.virsh('start');
    const next = await vm.run();
    expect(next.error.message).toBe('none');
    for (const { kind, why } of next.made.disks) {
      expect(kind).toBe('full');
      expect(why).toContain('QEMU ended without storing');
    }
    await vm.write('vda', 6, 4096, 64);
    const last = await vm.run('--incremental');
    expect(last.error.message).toBe('none');
    expect(await vm.checkpoints()).toContain('theirs');
    for (const { made } of [second, third, fourth, fifth, next, last])
      expect(await vm.differences(made.run)).toEqual([]);
  });

  test('increments go on over a snapshot and its commit, and over disks that changed places', async () => {
    await using vm = await BackedUpDomain.start(host(), 'places', twoDisks);
    for (const { target } of twoDisks) await vm.write(target, 1, 0, 2048);
    const full = await vm.run();
    await vm.write('vda', 2, 256, 64);
    const cut = await vm.domain.bridge(['snapshot', 'create', '--name', 's1', '--require', 'crash']);
    expect(cut.error.message).toBe('none');
    await vm.write('vda', 3, 512, 64);
    const second = await vm.run('--incremental');
    expect(second.error.message).toBe('none');
    expect(second.made.disks[0]).toMatchObject({ copiedBytes: 128 * 1024, source: { below: [vm.image('vda')] } });
    await vm.write('vda', 4, 1024, 64);
    const third = await vm.run('--incremental');
    expect(third.made.disks[0]?.copiedBytes).toBe(64 * 1024);
    await vm.write('vdb', 4, 1024, 128);
    expect((await vm.domain.bridge(['snapshot', 'commit', 's1'])).error.message).toBe('none');
    const fourth = await vm.run('--incremental');
    expect(fourth.error.message).toBe('none');
    expect(fourth.made.disks.map(({ base }) => base?.run)).toEqual([third.made.run, third.made.run]);

    // Each has the other's image now, and the checkpoint has one name on both.
    await vm.shutOff();
    await vm.swap();
    await vm.domain.virsh('start');
    await vm.write('vda', 5, 2048, 64);
    const swapped = await vm.run();
    expect(swapped.error.message).toBe('none');
    for (const { made } of [full, second, third, fourth, swapped]) expect(await vm.differences(made.run)).toEqual([]);
    expect(swapped.made.disks.map(({ kind, base }) => [kind, base?.name])).toEqual([
      ['incremental', 'vdb.qcow2'],
      ['incremental', 'vda.qcow2'],
    ]);
  });

  test('its checkpoints are true ones of libvirt: in order, with sizes, and somebody else backs up since one of them', async () => {
    await using vm = await BackedUpDomain.start(host(), 'true', twoDisks);
    await vm.write('vda', 1, 0, 1024);
    const names: string[] = [];
    for (const at of [256, 512]) {
      const { made, error } = await vm.run();
      expect(error.message).toBe('none');
      names.push(`fsb-${made.repository}-${made.run}`);
      await vm.write('vda', 2, at, 64);
    }
    const [first = '', second = ''] = names;
    const listed = await vm.domain.virsh('checkpoint-list', '--name', '--topological');
    expect(listed.split('\n')).toEqual(names);
    expect(await vm.domain.virsh('checkpoint-parent', second)).toBe(first);
    const described = await vm.domain.virsh('checkpoint-dumpxml', first, '--size');
    expect(described).toMatch(/<disk name='vda'[^>]* size='131072'/);
    expect(described).toMatch(/<disk name='vdb'[^>]* size='0'/);

    const file = vm.path('theirs.qcow2');
    const disks = `<disk name='vda' backup='yes' type='file'><target file='${file}'/><driver type='qcow2'/></disk><disk name='vdb' backup='no'/>`;
    const xml = `<domainbackup mode='push'><incremental>${second}</incremental><disks>${disks}</disks></domainbackup>`;
    await vm.domain.virsh('backup-begin', await host().file(xml));
    await expect.poll(() => vm.domain.virsh('domjobinfo', '--completed'), { timeout: 10_000 }).toMatch(/Completed/);
    expect(await allocated(file)).toEqual([[512 * 1024, 64 * 1024]]);
    const next = await vm.run('--incremental');
    expect(next.error.message).toBe('none');
    expect(await vm.differences(next.made.run)).toEqual([]);
  });

  test('what libvirt cannot do is refused before anything is done', async () => {
    await using vm = await BackedUpDomain.start(host(), 'refused', twoDisks);
    const refused = await vm.run('--compress', 'zstd');
    expect(refused).toMatchObject({ code: 2, error: { code: 'E_USAGE' } });
    expect(refused.error.message).toBe('--compress zstd: libvirt cannot compress what it copies');
    expect(await vm.checkpoints()).toEqual([]);
    await vm.foreignBackup('vda');
    const busy = await vm.run();
    expect(busy).toMatchObject({ code: 2, error: { code: 'E_BACKUP' } });
    expect(busy.error.message).toContain('a job of it is under way (virsh domjobinfo)');
    await vm.domain.virsh('domjobabort');
    expect(await vm.domain.bridge(vm.words('--dry-run'))).toMatchObject({
      code: 0,
      json: {
        disks: [
          { id: 'vda', kind: 'full' },
          { id: 'vdb', kind: 'full' },
        ],
      },
    });
  });
});

/** What the image holds itself, and not one below it, which may be in use: where, and how many bytes. */
async function allocated(file: string): Promise<number[][]> {
  const { stdout } = await execa('qemu-img', ['map', '-U', '--output=json', file]);
  const extents = JSON.parse(stdout) as { start: number; length: number; depth: number; data: boolean }[];
  return extents.filter(({ data, depth }) => data && depth === 0).map(({ start, length }) => [start, length]);
}
