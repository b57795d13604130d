// The host tool on libvirt domains: the same promises as on plain QEMU, with nothing done behind libvirt's back.
import { readdir, rm } from 'node:fs/promises';
import { execa } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Finding } from '../../src/host/recover/finding.js';
import type { Manifest } from '../../src/host/sets/manifest.js';
import { amcheckFaults, bootCut, compareContents, refusalOf } from '../../vm-images/demo/database.js';
import { needsRecovery, rawCopy } from '../../vm-images/demo/disks.js';
import { startLoad } from '../../vm-images/demo/load.js';
import { acknowledge } from '../support/acknowledge.js';
import { createOn, domainBridge, domainBridgeProcess, images } from '../support/libvirt-bridge.js';
import type { LibvirtDomain } from '../support/libvirt-domain.js';
import { domainState, startDomain } from '../support/libvirt-state.js';
import { LIBVIRT_NEEDS, LibvirtHost } from '../support/libvirt.js';
import { startOddDomain } from '../support/odd-domain.js';
import { requires } from '../support/requires.js';
import { rarely } from '../support/variants.js';

const BUILD_LIMIT_MS = 600_000;
const HOOKS = '/etc/fsfreeze-bridge/fsfreeze-hook.d';
let host: LibvirtHost;
beforeAll(async () => {
  await domainState('ours');
  host = await LibvirtHost.start();
}, BUILD_LIMIT_MS);
afterAll(async () => {
  await host[Symbol.asyncDispose]();
});

/** Drops a plain hook into the guest. */
async function addHook(domain: LibvirtDomain, name: string, script: string): Promise<void> {
  const file = `${HOOKS}/${name}`;
  await domain.exec(`mkdir -p ${HOOKS} && cat >${file} && chmod 755 ${file}`, { input: script });
}

async function expectWritable(domain: LibvirtDomain): Promise<void> {
  await domain.exec('for d in / /srv/data /srv/ext /srv/btrfs; do echo x >$d/probe && sync -f $d || exit 1; done');
}

async function expectNothingLeft(domain: LibvirtDomain, originals: Record<string, string>): Promise<void> {
  expect(await images(domain)).toEqual(originals);
  expect((await readdir(domain.dir)).filter((name) => /\.s\d-[0-9a-f]{8}\.qcow2/.test(name))).toEqual([]);
  await expectWritable(domain);
}

const recovered = async (domain: LibvirtDomain): Promise<readonly Finding[]> => {
  const { exitCode, json } = await domainBridge(domain, 'recover');
  expect(exitCode).toBe(0);
  expect((await domainBridge(domain, 'recover')).json).toMatchObject({ findings: [], exitCode: 0 });
  return (json as { findings: Finding[] }).findings;
};

requires(...LIBVIRT_NEEDS)('the host tool on a libvirt domain', () => {
  test('five disks at one instant under load; what was cut is whole, and merged back nothing is lost', async () => {
    await using domain = await startDomain(host, 'ours');
    const originals = await images(domain);
    const load = await startLoad(await domain.postgresPort(), 4);
    await acknowledge(load, 200);
    const manifest = await createOn(domain, 's1', '--require', 'application');
    await acknowledge(load, 50);
    expect(manifest).toMatchObject({ state: 'cut', level: 'application', guest: { outcome: 'ok' } });
    expect(manifest.disks.map(({ device, serial, level }) => [device, serial, level])).toEqual(
      ['root', 'data', 'ext', 'btrfs', 'lvm'].map((serial, index) => [`vd${'abcde'[index]}`, serial, 'application']),
    );
    // libvirt knows, of the running domain and of its definition.
    const overlays = Object.fromEntries(manifest.disks.map(({ device, overlay }) => [device, overlay.file]));
    expect(await images(domain)).toEqual(overlays);
    expect(await images(domain, '--inactive')).toEqual(overlays);

    const base = (index: number) => ({ file: manifest.disks[index]?.base.file ?? '', format: 'qcow2' as const });
    const raw = await rawCopy(base(0), domain.dir, 'cut');
    expect(await needsRecovery(raw)).toBe(false);
    await rm(raw);
    {
      await using booted = await bootCut({ root: base(0), data: base(1) });
      expect(await refusalOf(booted)).toBeUndefined();
      const { freezeRequestedMs = NaN, thawAnsweredMs = NaN } = manifest.timings.marks;
      const transactions = [...load.transactions];
      const contents = await compareContents(booted.postgresPort, transactions, freezeRequestedMs, thawAnsweredMs);
      expect(contents).toMatchObject({ missing: 0, foreign: 0 });
      expect(contents.acknowledgedBefore).toBeGreaterThanOrEqual(200);
      expect(await amcheckFaults(booted)).toBe('');
    }
    expect(await domainBridge(domain, 'snapshot', 'commit', 's1')).toMatchObject({ exitCode: 0 });
    await acknowledge(load, 50);
    await load.stop();
    await expectNothingLeft(domain, originals);
    expect(await images(domain, '--inactive')).toEqual(originals);
    const port = await domain.postgresPort();
    expect(await compareContents(port, load.transactions, Infinity, Infinity)).toMatchObject({ missing: 0 });
  });

  rarely('a part of the disks, two sets on each other, newest committed first', async () => {
    await using domain = await startDomain(host, 'ours');
    const originals = await images(domain);
    const first = await createOn(domain, 's1', '--disk', 'vda', '--disk', 'data');
    expect(first.disks.map(({ device }) => device)).toEqual(['vda', 'vdb']);
    expect(first.leftOut).toHaveLength(3);
    const second = await createOn(domain, 's2', '--disk', 'vda', '--disk', 'vdb');
    expect(second.disks[0]?.base.file).toBe(first.disks[0]?.overlay.file);
    expect(await domainBridge(domain, 'snapshot', 'commit', 's1')).toMatchObject({
      exitCode: 2,
      json: { error: { code: 'E_NEWER_SETS' } },
    });
    expect(await domainBridge(domain, 'snapshot', 'list')).toMatchObject({
      json: { sets: [{ set: 's1' }, { set: 's2' }] },
    });
    for (const set of ['s2', 's1']) {
      expect(await domainBridge(domain, 'snapshot', 'commit', set)).toMatchObject({ exitCode: 0 });
    }
    await expectNothingLeft(domain, originals);
    expect((await domainBridge(domain, 'status')).json).toMatchObject({ agent: { state: 'idle', kind: 'bridge' } });
  });

  rarely('shut off: reverted, and deleted; libvirt starts the domain from what is left', async () => {
    await using domain = await startDomain(host, 'ours');
    const originals = await images(domain);
    const definition = await domain.xml('--inactive');
    await createOn(domain, 's1');
    expect(await domainBridge(domain, 'snapshot', 'revert', 's1', '--yes')).toMatchObject({
      exitCode: 2,
      json: { error: { code: 'E_VM_RUNS' } },
    });
    await domain.run('destroy');
    expect(await domainBridge(domain, 'snapshot', 'revert', 's1', '--yes')).toMatchObject({ exitCode: 0 });
    await domain.run('start');
    expect((await images(domain))['vda']).toMatch(/root\.s1-[0-9a-f]{8}\.qcow2$/);
    expect(await domainBridge(domain, 'snapshot', 'delete', 's1', '--yes')).toMatchObject({
      exitCode: 2,
      json: { error: { code: 'E_IN_USE' } },
    });
    await domain.run('destroy');
    expect(await domainBridge(domain, 'snapshot', 'delete', 's1', '--yes')).toMatchObject({ exitCode: 0 });
    expect(await domain.xml('--inactive')).toBe(definition);
    await domain.run('start');
    expect(await images(domain)).toEqual(originals);
  });

  test('the tool killed while it holds, and after its cut: recover', async () => {
    await using domain = await startDomain(host, 'ours');
    const originals = await images(domain);
    await addHook(domain, '60-slow', '#!/bin/sh\n[ "$1" = freeze ] || exit 0\ntouch /run/held; exec sleep 4\n');
    const held = domainBridgeProcess(
      domain,
      'snapshot',
      'create',
      '--name',
      's1',
      '--lease',
      '60',
      '--require',
      'filesystem',
    );
    await domain.exec('until [ -e /run/held ]; do sleep 0.05; done; rm /run/held', { timeoutMs: 60_000 });
    held.kill('SIGKILL');
    await held;
    expect((await recovered(domain)).map(({ kind, status }) => [kind, status])).toEqual([
      ['guest-held', 'done'],
      ['set-unfinished', 'done'],
    ]);
    await expectNothingLeft(domain, originals);

    await addHook(domain, '60-slow', '#!/bin/sh\n[ "$1" = thaw ] || exit 0\nexec sleep 6\n');
    const cut = domainBridgeProcess(
      domain,
      'snapshot',
      'create',
      '--name',
      's2',
      '--lease',
      '60',
      '--require',
      'crash',
    );
    await expect.poll(() => domain.source('root'), { timeout: 60_000 }).toMatch(/root\.s2-[0-9a-f]{8}\.qcow2$/);
    cut.kill('SIGKILL');
    await cut;
    const findings = await recovered(domain);
    expect(findings.map(({ kind }) => kind)).toContain('set-unfinished');
    expect((await domainBridge(domain, 'snapshot', 'show', 's2')).json).toMatchObject({ state: 'cut', level: 'crash' });

    await domain.exec('dd if=/dev/urandom of=/var/tmp/written bs=1M count=6 conv=fsync 2>/dev/null');
    const merging = domainBridgeProcess(domain, 'snapshot', 'commit', 's2', '--speed', '1');
    await expect.poll(() => domain.xml(), { timeout: 60_000 }).toContain("job='active-commit'");
    merging.kill('SIGKILL');
    await merging;
    expect((await recovered(domain)).map(({ kind, status }) => [kind, status])).toEqual([['set-commit', 'done']]);
    await expectNothingLeft(domain, originals);
  });

  rarely(
    'an overlay that virsh made, and whose failed thaw nobody noticed, is told of with what merges it',
    async () => {
      await using domain = await startDomain(host, 'ours');
      const originals = await images(domain);
      await domain.run('snapshot-create-as', 's9', '--disk-only', '--atomic', '--no-metadata');
      const { exitCode, json } = await domainBridge(domain, 'recover');
      const { findings } = json as { findings: Finding[] };
      expect([exitCode, findings.length]).toEqual([8, 5]);
      for (const { kind, status, commands } of findings) {
        expect([kind, status, commands.length]).toEqual(['overlay-unknown', 'yours', 1]);
        await execa('sh', ['-c', commands[0] ?? 'false']);
      }
      expect(await images(domain)).toEqual(originals);
      expect(await domainBridge(domain, 'recover')).toMatchObject({ exitCode: 0, json: { findings: [] } });
    },
  );

  rarely('interrupted while a writer holds: thawed, nothing cut', async () => {
    await using domain = await startDomain(host, 'ours');
    const originals = await images(domain);
    await addHook(domain, '60-slow', '#!/bin/sh\n[ "$1" = freeze ] || exit 0\ntouch /run/held; exec sleep 3\n');
    const tool = domainBridgeProcess(domain, 'snapshot', 'create', '--name', 's1');
    await domain.exec('until [ -e /run/held ]; do sleep 0.05; done', { timeoutMs: 60_000 });
    tool.kill('SIGINT');
    expect((await tool).exitCode).toBe(4);
    await expectNothingLeft(domain, originals);
    expect((await domainBridge(domain, 'status')).json).toMatchObject({ agent: { state: 'idle' } });
  });

  test('transient, paused, its agent stopped, its overlays out of libvirt’s reach, shut off, unknown: each a clear line', async () => {
    await using domain = await startDomain(host, 'ours');
    const originals = await images(domain);
    const refused = async (exitCode: number, message: RegExp, ...words: string[]): Promise<void> => {
      const {
        exitCode: code,
        json,
        stderr,
      } = await domainBridge(domain, 'snapshot', 'create', '--name', 's1', ...words);
      const { error } = json as { error: { message: string } };
      expect(error.message).toMatch(message);
      expect(
        stderr
          .trim()
          .split('\n')
          .filter((line) => line.startsWith('fsfreeze-bridge:')),
      ).toHaveLength(1);
      expect(code).toBe(exitCode);
    };
    await domain.run('undefine', '--snapshots-metadata', '--checkpoints-metadata', '--managed-save');
    await createOn(domain, 's2');
    expect(await domainBridge(domain, 'snapshot', 'commit', 's2')).toMatchObject({ exitCode: 0 });

    // libvirtd's mounts are its own: it does not see what was mounted here since.
    const elsewhere = await domain.folder('elsewhere');
    await execa('mount', ['-t', 'tmpfs', '-o', 'size=512m', 'fsb-test', elsewhere]);
    try {
      await refused(5, /elsewhere\/root\.s1-[0-9a-f]{8}\.qcow2.*No such file/, '--overlay-dir', elsewhere);
      expect(await readdir(elsewhere)).toEqual([]);
    } finally {
      await execa('umount', [elsewhere]);
    }

    await domain.run('suspend');
    await refused(4, /the VM is paused: its guest cannot be held/);
    expect(await createOn(domain, 's3', '--require', 'crash')).toMatchObject({ level: 'crash' });
    await domain.run('resume');
    expect(await domainBridge(domain, 'snapshot', 'commit', 's3')).toMatchObject({ exitCode: 0 });

    await domain.exec(['/bin/systemctl', 'kill', '-s', 'STOP', 'fsfreeze-agent']);
    await refused(3, /guest agent of libvirt domain fsb does not answer/, '--agent-timeout', '2');
    await domain.exec(['/bin/systemctl', 'kill', '-s', 'CONT', 'fsfreeze-agent']);
    await domain.exec(['/bin/systemctl', 'stop', 'fsfreeze-agent']);
    await refused(3, /nobody in the guest has its channel open/);
    await expectNothingLeft(domain, originals);
    await domain.run('destroy');
    await refused(3, /libvirt has no domain "fsb"/);
  });

  test('raw, block, network and read-only disks, no agent channel, no libvirt', async () => {
    await using odd = await startOddDomain(host);
    let sets = 0;
    const create = (...words: string[]) => domainBridge(odd, 'snapshot', 'create', '--name', `s${sets++}`, ...words);
    const refused = async (exitCode: number, message: RegExp, ...words: string[]): Promise<void> => {
      const { exitCode: code, json } = await create(...words);
      expect((json as { error: { message: string } }).error.message).toMatch(message);
      expect(code).toBe(exitCode);
    };
    await refused(2, /cannot cut disk vdc .*its image lies on the network: .*nbd/, '--disk', 'vdc');
    await refused(2, /cannot cut disk vdd .*: it is read-only/, '--disk', 'vdd');
    await refused(2, /vdb .*is a device: say with --overlay-dir/, '--disk', 'vdb', '--require', 'crash');
    await refused(3, /the domain has no channel org\.qemu\.guest_agent\.0/, '--disk', 'vda');
    const both = ['--disk', 'vda', '--disk', 'vdb', '--overlay-dir', odd.dir];
    const cut = await create(...both, '--require', 'crash');
    expect(cut).toMatchObject({ exitCode: 0, json: { level: 'crash', state: 'cut' } });
    const { set, disks, leftOut } = cut.json as Manifest;
    expect(disks.map(({ device, base }) => [device, base.file, base.format])).toEqual([
      ['vda', odd.images.vda, 'raw'],
      ['vdb', odd.images.vdb, 'raw'],
    ]);
    expect(leftOut.map(({ reason }) => reason)).toContain('not named by --disk');
    expect(await images(odd)).toMatchObject(Object.fromEntries(disks.map((disk) => [disk.device, disk.overlay.file])));
    expect(await domainBridge(odd, 'snapshot', 'commit', set)).toMatchObject({ exitCode: 0 });
    expect(await images(odd)).toMatchObject(odd.images);
    await host.run(['destroy', odd.name]);
    await refused(3, /libvirt has no domain "odd"/);

    const status = await domainBridge({ ...odd, host: { uri: 'qemu+unix:///system?socket=/nonexistent' } }, 'status');
    expect(status).toMatchObject({ exitCode: 3, json: { monitor: { error: { code: 'E_LIBVIRT' } } } });
  });

  test('the stock qemu-ga in the guest: filesystem at best', async () => {
    await using domain = await startDomain(host, 'stock');
    expect(await createOn(domain, 's1')).toMatchObject({ level: 'filesystem', guest: { outcome: 'ok' } });
    expect(await domainBridge(domain, 'snapshot', 'commit', 's1')).toMatchObject({ exitCode: 0 });
    await expectWritable(domain);
  });
});
