// Backups of libvirt domains and what becomes of their images: the base of a snapshot set is only read, and an image that
// somebody put in the place of another is no base.
import { renameSync, statSync } from 'node:fs';
import { expect, test, vi } from 'vitest';
import { BackedUpDomain, twoDisks } from '../support/backed-up-domain.js';
import { requires } from '../support/requires.js';
import { BARE_DOMAIN_NEEDS, sharedLibvirt } from '../support/shared-libvirt.js';

const host = sharedLibvirt();

requires(...BARE_DOMAIN_NEEDS)('the images of a libvirt domain that is backed up', () => {
  // libvirt asks QEMU anew for what it can do when either is new.
  vi.setConfig({ testTimeout: 120_000 });

  test('the base of a snapshot set stays as it was cut, whatever checkpoints are forgotten', async () => {
    await using vm = await BackedUpDomain.start(host(), 'base', twoDisks);
    for (const { target } of twoDisks) await vm.write(target, 1, 0, 1024);
    const full = await vm.run();
    await vm.write('vda', 2, 256, 64);
    const create = ['snapshot', 'create', '--name', 's1', '--disk', 'vda', '--require', 'crash'];
    expect((await vm.domain.bridge(create)).error.message).toBe('none');
    const asCut = statSync(vm.image('vda')).mtimeMs;
    await vm.write('vda', 3, 512, 64);
    const second = await vm.run('--incremental', '--keep-checkpoints', '1');
    await vm.write('vda', 4, 1024, 64);
    const third = await vm.run('--incremental', '--keep-checkpoints', '1');
    for (const { error, made } of [second, third]) expect(error.message, made.run).toBe('none');
    expect(statSync(vm.image('vda')).mtimeMs).toBe(asCut);
    const shown = await vm.domain.bridge(['snapshot', 'show', 's1']);
    expect(shown.json).toMatchObject({ level: 'crash' });

    // In one layer again, the checkpoints that nobody wants are gone with the next run.
    expect((await vm.domain.bridge(['snapshot', 'commit', 's1'])).error.message).toBe('none');
    await vm.write('vda', 5, 2048, 64);
    const fourth = await vm.run('--incremental', '--keep-checkpoints', '1');
    expect(fourth.error.message).toBe('none');
    expect(await vm.checkpoints()).toEqual([`fsb-${full.made.repository}-${fourth.made.run}`]);
    const nodes = (await vm.qmp('query-named-block-nodes')) as { 'dirty-bitmaps'?: { name: string }[] }[];
    const names = new Set(nodes.flatMap((node) => node['dirty-bitmaps'] ?? []).map(({ name }) => name));
    expect([...names]).toEqual(await vm.checkpoints());
    for (const { made } of [full, second, third, fourth]) expect(await vm.differences(made.run)).toEqual([]);
  });

  test('images that were exchanged under their names are copied in full', async () => {
    await using vm = await BackedUpDomain.start(host(), 'exchanged', twoDisks);
    await vm.write('vda', 1, 0, 1024);
    await vm.write('vdb', 2, 0, 1024);
    const full = await vm.run();
    await vm.write('vda', 3, 256, 64);
    await vm.shutOff();
    const state = vm.state();
    renameSync(vm.image('vda'), vm.path('aside'));
    renameSync(vm.image('vdb'), vm.image('vda'));
    renameSync(vm.path('aside'), vm.image('vdb'));
    const [vda = Buffer.of(), vdb = Buffer.of()] = twoDisks.map(({ target }) => state.get(target));
    vm.became(
      new Map([
        ['vda', vdb],
        ['vdb', vda],
      ]),
    );
    const off = await vm.run();
    await vm.domain.virsh('start');
    await vm.write('vda', 4, 512, 64);
    const on = await vm.run();
    for (const { error, made } of [off, on]) {
      expect(error.message).toBe('none');
      expect(await vm.differences(made.run)).toEqual([]);
    }
    expect(off.made.disks[0]).toMatchObject({
      kind: 'full',
      why: `no increment of run ${full.made.run}: which of its disks this one was is not known, its image is none of theirs`,
    });
    expect(on.made.disks.map(({ kind }) => kind)).toEqual(['incremental', 'incremental']);
  });
});
