// The TPM of a libvirt domain: its state travels with sets and backups, and a backup that is booted to be tested has none.
import { readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { expect, test, vi } from 'vitest';
import type { RunManifest } from '../../src/host/repository/run-manifest.js';
import type { Manifest } from '../../src/host/sets/manifest.js';
import { createBlank } from '../../src/testing/disks.js';
import { BareDomain } from '../support/bare-domain.js';
import { requires } from '../support/requires.js';
import { runTool } from '../support/run-tool.js';
import { BARE_DOMAIN_NEEDS, sharedLibvirt } from '../support/shared-libvirt.js';

const host = sharedLibvirt();

async function start(name: string): Promise<BareDomain> {
  const dir = await BareDomain.folder(host(), name);
  const image = path.join(dir, 'a.qcow2');
  await createBlank(image, 16);
  const disk = `<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${image}'/><target dev='vda' bus='virtio'/></disk>`;
  const tpm = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>";
  return await BareDomain.start(host(), name, { devices: () => disk + tpm });
}

/** `folder`: of what was saved, which must be what swtpm has. */
async function expectState(saved: Manifest['saved'], folder: string): Promise<void> {
  const state = saved?.find(({ name }) => name === 'tpm/tpm2-00.permall');
  expect(state).toMatchObject({ what: 'state of the TPM', copied: 'after the cut' });
  // libvirtd's own mounts.
  const original = await readFile(path.join(host().dir, 'tree', state?.from ?? ''));
  expect(original.length).toBe(state?.size);
  expect(original.equals(await readFile(path.join(folder, state?.name ?? '')))).toBe(true);
}

requires(
  ...BARE_DOMAIN_NEEDS,
  'swtpm',
  'swtpm_setup',
)('the TPM of a libvirt domain', () => {
  // libvirt asks QEMU anew for what it can do when either is new.
  vi.setConfig({ testTimeout: 120_000 });

  test('its state is kept with a set, as swtpm has it', async () => {
    await using domain = await start('set');
    const { code, manifest } = await domain.bridge(['snapshot', 'create', '--name', 's1', '--require', 'crash']);
    expect(code).toBe(0);
    await expectState(manifest.saved, await domain.state('s1'));
  });

  test('its state is kept with a backup, whose boot test says that the guest had no TPM', async () => {
    await using domain = await start('backup');
    const repository = path.join(domain.dir, 'repository');
    const { error, json } = await domain.bridge(['backup', 'run', '--to', repository, '--require', 'crash']);
    expect(error.message).toBe('none');
    const folder = path.join(repository, await domain.virsh('domuuid'), String(json['run']));
    const file = path.join(folder, 'manifest.json');
    const made = JSON.parse(await readFile(file, 'utf8')) as RunManifest;
    await expectState(made.saved, folder);
    // As if an agent had answered: without one nothing would tell that a guest is up, and none is started.
    await rm(file);
    await writeFile(file, JSON.stringify({ ...made, versions: { ...made.versions, agent: '0.1.0' } }));
    const given = ['--boot', '--no-sums', '--accel', 'tcg', '--scratch', domain.dir, '--boot-timeout', '2'];
    const booted = await runTool(['backup', 'verify', made.run, '--repo', repository, ...given, '--json']);
    const boot = {
      problems: ['no agent answered within 2 s'],
      notes: ['it is booted without its TPM: what only that unlocks stays locked'],
    };
    expect(booted).toMatchObject({ code: 10, json: { runs: [{ problems: [], boot }] } });
  });
});
