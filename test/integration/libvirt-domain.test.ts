// The host tool on libvirt domains without a guest: what becomes of the definition, what is kept of a domain beside its
// disks, and whose images are not here.
import { createHash } from 'node:crypto';
import { chmod, readFile, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { createBlank } from '../../src/testing/disks.js';
import { changeDefinition } from '../../src/host/vm/libvirt/definition.js';
import { managedSaveOf } from '../../src/host/vm/libvirt/managed-save.js';
import { BareDomain } from '../support/bare-domain.js';
import { LibvirtHost } from '../support/libvirt.js';
import { requires } from '../support/requires.js';

let host: LibvirtHost;
beforeAll(async () => {
  host = await LibvirtHost.start();
});
afterAll(async () => {
  await host[Symbol.asyncDispose]();
});

/** A file as a block device. */
async function loopDevice(file: string): Promise<AsyncDisposable & { readonly device: string }> {
  const device = (await execa('losetup', ['--find', '--show', file])).stdout;
  return {
    device,
    [Symbol.asyncDispose]: async () => {
      await execa('losetup', ['--detach', device]);
    },
  };
}

const fileDisk = (file: string, rest = ''): string =>
  `<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${file}'/><target dev='vda' bus='virtio'/>${rest}</disk>`;

const NEEDS = ['root', 'loop', 'libvirtd', 'virsh', 'qemu-system-x86_64', 'qemu-img'] as const;

requires(...NEEDS)('a libvirt domain', () => {
  // libvirt asks QEMU anew for what it can do when either is new.
  vi.setConfig({ testTimeout: 120_000 });
  test('a transient disk is left out, with its reason, and the others are cut', async () => {
    const dir = await BareDomain.folder(host, 'transient');
    const [kept, thrown] = [path.join(dir, 'kept.qcow2'), path.join(dir, 'thrown.qcow2')];
    for (const file of [kept, thrown]) await createBlank(file, 16);
    const devices = () => fileDisk(kept) + fileDisk(thrown, '<transient/>').replace("dev='vda'", "dev='vdb'");
    await using domain = await BareDomain.start(host, 'transient', { devices });
    const made = await domain.bridge(['snapshot', 'create', '--name', 's1', '--require', 'crash']);
    expect(made).toMatchObject({ code: 0, manifest: { state: 'cut', disks: [{ base: { file: kept } }] } });
    expect(made.manifest.leftOut.map(({ reason }) => reason).join()).toContain('transient');
    expect(await domain.bridge(['recover'])).toMatchObject({ code: 0 });
  });

  test('a set on a block device is deleted with the domain shut off: the definition is what it was before the cut', async () => {
    const dir = await BareDomain.folder(host, 'device');
    await createBlank(path.join(dir, 'lv'), 32, 'raw');
    await using loop = await loopDevice(path.join(dir, 'lv'));
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', loop.device, '16M']);
    const driver = "<driver name='qemu' type='qcow2' cache='writethrough' discard='unmap' detect_zeroes='unmap'/>";
    const rest = "<iotune><total_iops_sec>5000</total_iops_sec></iotune><serial>root</serial><boot order='1'/>";
    const disk = `<disk type='block' device='disk'>${driver}<source dev='${loop.device}'/><target dev='vda' bus='virtio'/>${rest}</disk>`;
    await using domain = await BareDomain.start(host, 'device', { devices: () => disk });
    const before = await domain.definition();
    const cut = async (set: string): Promise<string> => {
      const made = await domain.bridge([
        'snapshot',
        'create',
        '--name',
        set,
        '--require',
        'crash',
        '--overlay-dir',
        dir,
      ]);
      expect(made).toMatchObject({ code: 0, manifest: { state: 'cut' } });
      const overlay = made.manifest.disks[0]?.overlay.file ?? '';
      expect(await domain.definition()).toContain(`<source file='${overlay}'`);
      return overlay;
    };
    const removed = async (set: string): Promise<void> => {
      expect(await domain.bridge(['snapshot', 'delete', set, '--yes'])).toMatchObject({ code: 0 });
    };
    await cut('s1');
    await domain.virsh('destroy');
    await removed('s1');
    expect(await domain.definition()).toBe(before);
    await domain.virsh('start');

    // Two on each other, the lower one reverted first.
    await cut('s1');
    await cut('s2');
    await domain.virsh('destroy');
    await removed('s2');
    expect(await domain.bridge(['snapshot', 'revert', 's1', '--yes'])).toMatchObject({ code: 0 });
    await removed('s1');
    expect(await domain.definition()).toBe(before);
    await domain.virsh('start');

    // What the set kept is not what it was: the definition is derived from what is known.
    await cut('s1');
    await domain.virsh('destroy');
    await writeFile(await domain.state('s1', 'domain-inactive.xml'), '<domain/>');
    await removed('s1');
    expect(await domain.definition()).toBe(before);
    await domain.virsh('start');
    expect(await domain.virsh('domblklist')).toContain(loop.device);
  });

  test('a definition gets its encryption back, in its place', async () => {
    const dir = await BareDomain.folder(host, 'secret');
    const base = path.join(dir, 'base.qcow2');
    await createBlank(base, 16, 'qcow2');
    await using domain = await BareDomain.start(host, 'secret', { devices: () => fileDisk(base) });
    await domain.virsh('destroy');
    const clear = await domain.definition();
    const encryption =
      "<encryption format='luks'><secret type='passphrase' uuid='5f5b0f8e-2d4c-4c43-9a7e-6c2f2b1d0a02'/></encryption>";
    const define = async (source: string): Promise<string> => {
      await host.run(['define', await host.file(clear.replace(/<source file='[^']*'\/>/, source))]);
      return await domain.definition();
    };
    const before = await define(`<source file='${base}'>${encryption}</source>`);
    expect(before).toContain('<secret type=');
    const where = { domain: 'secret', uri: host.uri };
    const change = { from: path.join(dir, 'overlay.qcow2'), to: base, format: 'qcow2', isEncrypted: true };
    const cut = await define(`<source file='${change.from}'/>`);
    await expect(changeDefinition(where, [change])).rejects.toThrow('no longer says how');
    expect(await domain.definition()).toBe(cut);
    await changeDefinition(where, [change], before);
    expect(await domain.definition()).toBe(before);
  });

  test('under a managed save nothing is reverted or deleted', async () => {
    const dir = await BareDomain.folder(host, 'saved');
    await createBlank(path.join(dir, 'a.qcow2'), 16, 'qcow2');
    await using domain = await BareDomain.start(host, 'saved', { devices: () => fileDisk(path.join(dir, 'a.qcow2')) });
    const where = { domain: 'saved', uri: host.uri };
    const cut = await domain.bridge(['snapshot', 'create', '--name', 's1', '--require', 'crash']);
    expect(cut).toMatchObject({ code: 0 });
    expect(await managedSaveOf(where)).toEqual([]);
    await domain.virsh('managedsave');
    const overlay = cut.manifest.disks[0]?.overlay.file ?? '';
    expect((await managedSaveOf(where)).map(({ file }) => file)).toEqual([overlay, path.join(dir, 'a.qcow2')]);
    const { ino } = await stat(overlay);
    for (const command of ['revert', 'delete']) {
      const refused = await domain.bridge(['snapshot', command, 's1', '--yes']);
      expect(refused).toMatchObject({ code: 2, error: { code: 'E_IN_USE' } });
      expect(refused.error.message).toContain(`${overlay}: the managed save of libvirt domain saved goes on with it`);
    }
    expect((await stat(overlay)).ino).toBe(ino);
    await domain.virsh('managedsave-remove');
    expect(await managedSaveOf(where)).toEqual([]);
    expect(await domain.bridge(['snapshot', 'delete', 's1', '--yes'])).toMatchObject({ code: 0 });
    expect(await managedSaveOf({ domain: 'nobody', uri: host.uri })).toEqual([]);
  });

  test('the XML of the domain and the variables of its firmware are kept with the set, and named', async () => {
    const dir = await BareDomain.folder(host, 'firmware');
    await createBlank(path.join(dir, 'a.qcow2'), 16, 'qcow2');
    const variables = Buffer.alloc(65_536, 'variables');
    await writeFile(path.join(dir, 'vars.fd'), variables);
    await using domain = await BareDomain.start(host, 'firmware', {
      devices: () => fileDisk(path.join(dir, 'a.qcow2')),
      flash: () => `<nvram>${dir}/vars.fd</nvram>`,
    });
    const texts = [await domain.virsh('dumpxml'), await domain.definition()];
    const { manifest } = await domain.bridge(['snapshot', 'create', '--name', 's1', '--require', 'crash']);
    const kept = manifest.saved ?? [];
    expect(kept.map(({ name, copied }) => [name, copied])).toEqual([
      ['domain.xml', 'before the cut'],
      ['domain-inactive.xml', 'before the cut'],
      ['nvram/vars.fd', 'after the cut'],
    ]);
    expect(kept[2]?.from).toBe(path.join(dir, 'vars.fd'));
    for (const [index, { name, size, sha256 }] of kept.entries()) {
      const bytes = await readFile(await domain.state('s1', name));
      expect([bytes.length, createHash('sha256').update(bytes).digest('hex')]).toEqual([size, sha256]);
      if (index < 2) expect(bytes.toString().trim()).toBe(texts[index]);
      else expect(bytes.equals(variables)).toBe(true);
    }
    expect((await domain.bridge(['snapshot', 'show', 's1'])).manifest.saved).toEqual(kept);
  });

  test('variables that cannot be copied are said to be left out, and the set is there', async () => {
    const dir = await BareDomain.folder(host, 'gone');
    await createBlank(path.join(dir, 'a.qcow2'), 16, 'qcow2');
    await writeFile(path.join(dir, 'vars.fd'), Buffer.alloc(65_536));
    await using domain = await BareDomain.start(host, 'gone', {
      devices: () => fileDisk(path.join(dir, 'a.qcow2')),
      flash: () => `<nvram>${dir}/vars.fd</nvram>`,
    });
    await rm(path.join(dir, 'vars.fd'));
    const { code, manifest } = await domain.bridge(['snapshot', 'create', '--name', 's1', '--require', 'crash']);
    expect([code, manifest.state]).toEqual([0, 'cut']);
    expect(manifest.leftOut).toContainEqual({
      what: `variables of the firmware (${dir}/vars.fd)`,
      reason: expect.stringMatching(/^could not be copied: .*ENOENT/) as string,
    });
  });

  test('the disk of a domain that copies on read is found below the filter, and cut', async () => {
    const dir = await BareDomain.folder(host, 'copying');
    await createBlank(path.join(dir, 'ground.qcow2'), 16, 'qcow2');
    const file = path.join(dir, 'a.qcow2');
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', path.join(dir, 'ground.qcow2'), '-F', 'qcow2', file]);
    const disk = fileDisk(file).replace("type='qcow2'/>", "type='qcow2' copy_on_read='on'/>");
    await using domain = await BareDomain.start(host, 'copying', { devices: () => disk });
    const cut = await domain.bridge(['snapshot', 'create', '--name', 's1', '--require', 'crash']);
    expect(cut).toMatchObject({ code: 0, manifest: { disks: [{ device: 'vda', base: { file, format: 'qcow2' } }] } });
    const overlay = cut.manifest.disks[0]?.overlay.file ?? '';
    expect(await domain.virsh('domblklist')).toContain(overlay);
    expect((await domain.bridge(['status'])).json).toMatchObject({
      monitor: { disks: [{ id: 'vda', file: overlay }] },
    });
  });

  test('images on another host are refused, with the reason, and questions are not', async () => {
    const dir = await BareDomain.folder(host, 'remote');
    await createBlank(path.join(dir, 'a.qcow2'), 16, 'qcow2');
    await using domain = await BareDomain.start(host, 'remote', { devices: () => fileDisk(path.join(dir, 'a.qcow2')) });
    // In place of ssh: the same bytes, to the same libvirtd.
    const ssh = path.join(dir, 'ssh');
    await writeFile(ssh, `#!/bin/sh\necho x >>${dir}/asked\nexec socat - UNIX-CONNECT:${host.dir}/libvirt-sock\n`);
    await chmod(ssh, 0o755);
    const uri = `qemu+ssh://node7.example.org/system?command=${ssh}`;
    const create = ['snapshot', 'create', '--name', 's1', '--require', 'crash'];
    const sets = ['commit', 'revert', 'delete'].map((command) => ['snapshot', command, 's1']);
    expect((await domain.bridge(create)).code).toBe(0);
    for (const words of [create.with(3, 's2'), ...sets]) {
      const refused = await domain.bridge(words, { uri });
      expect(refused).toMatchObject({ code: 2, error: { code: 'E_OTHER_HOST' } });
      expect(refused.error.message).toContain('another host (node7.example.org, by qemu+ssh:');
      expect(refused.error.message).toContain('its images are there: run fsfreeze-bridge there');
    }
    await expect(stat(path.join(dir, 'asked'))).rejects.toMatchObject({ code: 'ENOENT' });
    // It may be one VM of many.
    const recover = await domain.bridge(['recover'], { uri });
    expect(recover).toMatchObject({ code: 8, json: { findings: [{ kind: 'vm-failed' }] } });
    expect(JSON.stringify(recover.json)).toContain('another host (node7.example.org, by qemu+ssh:');
    // It has no agent: that is what the one says, and the other finds the VM.
    const status = await domain.bridge(['status'], { uri });
    expect(status.json).toMatchObject({ monitor: { status: 'running', disks: [{ id: 'vda' }] } });
    expect((await domain.bridge(['writers'], { uri })).error.message).toContain(
      'has no channel org.qemu.guest_agent.0',
    );
    expect(await domain.bridge(['snapshot', 'commit', 's1'])).toMatchObject({ code: 0 });
  });
});
