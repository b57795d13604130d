// Backups of a libvirt domain that is shut off: from the images that its definition names, with the bitmaps that libvirt goes
// on with when it runs again. And restores onto these images.
import { readFile } from 'node:fs/promises';
import { expect, test, vi } from 'vitest';
import { holdersOf } from '../../src/host/images/image-file.js';
import { restoreInPlace } from '../../src/host/restore/restore-in-place.js';
import { domainAt } from '../../src/host/vm/place.js';
import { BackedUpDomain, twoDisks } from '../support/backed-up-domain.js';
import { requires } from '../support/requires.js';
import { BARE_DOMAIN_NEEDS, sharedLibvirt } from '../support/shared-libvirt.js';

const host = sharedLibvirt();

requires(...BARE_DOMAIN_NEEDS)('a libvirt domain that is shut off', () => {
  // libvirt asks QEMU anew for what it can do when either is new.
  vi.setConfig({ testTimeout: 120_000 });

  test('is backed up as an increment, and so is what it writes when it runs again', async () => {
    await using vm = await BackedUpDomain.start(host(), 'off', twoDisks, { nvram: true });
    for (const { target } of twoDisks) await vm.write(target, 1, 0, 2048);
    const full = await vm.run();
    await vm.write('vda', 2, 256, 64);
    await vm.shutOff();
    // Its images may have changed places since.
    await vm.swap();
    expect((await vm.run('--dry-run')).json).toMatchObject({
      disks: [
        { id: 'vda', kind: 'incremental', bytes: 0 },
        { id: 'vdb', kind: 'incremental', bytes: 65_536 },
      ],
    });
    const off = await vm.run('--incremental');
    expect(off.error.message).toBe('none');
    expect(off).toMatchObject({ code: 0, made: { level: 'crash', vm: { status: 'shut off' } } });
    expect(
      off.made.disks.map(({ id, base, copiedBytes, serial }) => [id, base?.name, copiedBytes / 1024, serial]),
    ).toEqual([
      ['vda', 'vdb.qcow2', 0, 'serial-vda'],
      ['vdb', 'vda.qcow2', 64, 'serial-vdb'],
    ]);
    expect(off.made.evidence.join()).toContain('taken to be those of its definition');
    expect(off.made.saved.map(({ name }) => name)).toEqual(['domain-inactive.xml', 'nvram/vars.fd']);
    expect(await holdersOf(vm.image('vda'))).toEqual([]);

    await vm.domain.virsh('start');
    await vm.write('vda', 3, 512, 64);
    const on = await vm.run('--incremental');
    expect(on.error.message).toBe('none');
    expect(on.made.disks.map(({ base, copiedBytes }) => [base?.run, copiedBytes / 1024])).toEqual([
      [off.made.run, 64],
      [off.made.run, 0],
    ]);
    const names = [full, off, on].map(({ made }) => `fsb-${made.repository}-${made.run}`);
    expect((await vm.checkpoints()).sort()).toEqual(names.sort());

    // libvirt's record of what came after a snapshot is on the overlay alone.
    expect((await vm.domain.bridge(['snapshot', 'create', '--name', 's1', '--require', 'crash'])).code).toBe(0);
    await vm.write('vda', 4, 1024, 64);
    await vm.shutOff();
    const over = await vm.run();
    expect(over.error.message).toBe('none');
    expect(over.made.disks[0]).toMatchObject({
      kind: 'full',
      why: expect.stringContaining('in several layers') as string,
    });
    for (const { made } of [full, off, on, over]) expect(await vm.differences(made.run)).toEqual([]);
  });

  test('is refused while its images are in use, its memory is saved, or nobody knows its disks', async () => {
    await using vm = await BackedUpDomain.start(host(), 'kept', twoDisks);
    await vm.write('vda', 1, 0, 512);
    await vm.shutOff();
    const unknown = await vm.run();
    expect(unknown).toMatchObject({ code: 3, error: { code: 'E_MONITOR' } });
    expect(unknown.error.message).toContain('no run of the VM is here that would tell which disks it has');
    await vm.domain.virsh('start');
    expect((await vm.run()).code).toBe(0);
    await vm.domain.virsh('managedsave');
    const saved = await vm.run();
    expect(saved).toMatchObject({ code: 2, error: { code: 'E_IN_USE' } });
    expect(saved.error.message).toContain(
      `${vm.image('vda')}: the managed save of libvirt domain kept goes on with it`,
    );
    await vm.domain.virsh('managedsave-remove');
    {
      await using other = await vm.holder('vdb');
      const used = await vm.run();
      expect(used).toMatchObject({ code: 2, error: { code: 'E_IN_USE' } });
      expect(used.error.message).toContain(`(process ${other.pid})`);
    }
    expect((await vm.run('--incremental')).error.message).toBe('none');
  });

  test('is not restored in place while its memory is saved, before the question or after it', async () => {
    await using vm = await BackedUpDomain.start(host(), 'saved', twoDisks);
    await vm.write('vda', 1, 0, 512);
    const { made } = await vm.run();
    await vm.write('vda', 2, 256, 512);
    await vm.domain.virsh('managedsave');
    const bytes = await readFile(vm.image('vda'));
    const restore = ['backup', 'restore', made.run, '--in-place', '--repo', vm.repository, '--yes'];
    const why = `disk vda: ${vm.image('vda')}: the managed save of libvirt domain saved goes on with it (start the domain and shut it down, or drop its memory: virsh managedsave-remove)`;
    for (const words of [[], ['--dry-run'], ['--disk', 'vdb']]) {
      const refused = await vm.domain.bridge([...restore, ...words]);
      expect(refused).toMatchObject({ code: 2, error: { code: 'E_IN_USE' } });
      expect(refused.error.message).toBe(words.includes('vdb') ? why.replaceAll('vda', 'vdb') : why);
    }
    expect((await readFile(vm.image('vda'))).equals(bytes)).toBe(true);
    await vm.domain.virsh('managedsave-remove');

    // Somebody starts it and saves it while the question is thought about.
    const { uri, name } = { uri: host().uri, name: vm.domain.name };
    const signal = new AbortController().signal;
    const quiet = { signal, onProgress: () => undefined, onWarning: () => undefined };
    const domain = { name, monitor: domainAt({ domain: name, uri }) };
    const confirm = async (): Promise<boolean> => {
      await vm.domain.virsh('start');
      await vm.domain.virsh('managedsave');
      return true;
    };
    await expect(
      restoreInPlace({
        ...{ ...quiet, lock: { ...quiet, stateDir: vm.path('state'), vm: domain, operation: 'restore', waitMs: 0 } },
        ...{ repository: vm.repository, run: made.run, disks: [], images: new Map(), verify: false, key: undefined },
        ...{ monitorTimeoutMs: 10_000, limitMs: 60_000, dryRun: false, confirm },
      }),
    ).rejects.toMatchObject({ code: 'E_IN_USE', message: why });
    await vm.domain.virsh('managedsave-remove');
    const restored = await vm.domain.bridge(restore);
    expect(restored.error.message).toBe('none');
    expect(restored.json).toMatchObject({
      verified: true,
      disks: [
        { id: 'vda', bytes: 524_288 },
        { id: 'vdb', bytes: 0 },
      ],
    });
  });

  test('is backed up with every disk of its definition, also one that no run has', async () => {
    await using vm = await BackedUpDomain.start(host(), 'defined', twoDisks);
    for (const { target } of twoDisks) await vm.write(target, 1, 0, 512);
    const one = await vm.run('--disk', 'vda');
    expect(one.error.message).toBe('none');
    await vm.shutOff();
    const foreign = `<disk type='network' device='disk'><driver name='qemu' type='raw'/><source protocol='nbd' name='x'><host name='localhost'/></source><target dev='vdc' bus='virtio'/></disk>`;
    await vm.redefine((xml) => xml.replace('serial-vda', 'renamed').replace('</devices>', `${foreign}</devices>`));
    const off = await vm.run();
    expect(off.made.disks.map(({ id, serial, kind }) => [id, serial, kind])).toEqual([
      ['vda', 'renamed', 'incremental'],
      ['vdb', 'serial-vdb', 'full'],
    ]);
    expect(off.made.leftOut).toContainEqual({ what: 'vdc', reason: 'its image is no file or device of this host' });
    expect(await vm.differences(off.made.run)).toEqual([]);

    // It was taken from the definition: nobody guesses whether it is to be kept.
    await vm.redefine((xml) => xml.replace(/<disk(?:(?!<disk|<\/disk>)[^])*target dev='vd[bc]'[^]*?<\/disk>/g, ''));
    const gone = await vm.run();
    expect(gone).toMatchObject({ code: 2, error: { code: 'E_DISK' } });
    expect(gone.error.message).toBe(
      `the domain is defined without disk vdb of run ${off.made.run}: name the others (--disk)`,
    );
    const unknown = await vm.run('--disk', 'vdb');
    expect(unknown.error.message).toContain('expected one of the disks that the domain is defined with (vda, sda)');
    const named = await vm.run('--disk', 'vda', '--incremental');
    expect(named.error.message).toBe('none');
    expect((await vm.run()).made.disks.map(({ id }) => id)).toEqual(['vda']);
  });
});
