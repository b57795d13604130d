// What is cut of a libvirt domain, by a libvirtd of the test's own: disks that libvirt cannot cut as they must be, a part
// of a file, and a snapshot that somebody else makes between plan and cut.
import { execa } from 'execa';
import { copyFile, mkdir } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { checkUnchanged, overlayCut } from '../../src/host/create/overlay-cut.js';
import { compared } from '../../src/host/create/manifest-cut.js';
import { makeOverlays, planOverlays } from '../../src/host/create/overlays.js';
import type { Manifest } from '../../src/host/sets/manifest.js';
import { LibvirtDomain } from '../../src/host/vm/libvirt/domain.js';
import { Reverter } from '../../src/reverter.js';
import { addHaltingFirmware, haltingDomainXml } from '../support/halting-domain.js';
import { LibvirtHost } from '../support/libvirt.js';
import { images } from '../support/libvirt-bridge.js';
import { makeLuks } from '../support/luks.js';
import { requires } from '../support/requires.js';
import { runTool } from '../support/run-tool.js';

const MIB = 1024 * 1024;
const NAME = 'disks';
const SECRET = '9f3f4b9e-3c39-4f4f-8a8c-6a1f5f1f3a10';
let host: LibvirtHost;
let dir: string;
let round = 0;

const file = (name: string): string => path.join(dir, name);

interface Result {
  readonly code: number;
  readonly json: Manifest & { readonly error?: { readonly message: string } };
}

async function bridge(...words: string[]): Promise<Result> {
  const vm = ['--vm', `libvirt:${NAME}`, '--connect', host.uri, '--state-dir', file('state'), '--json'];
  const { code, json } = await runTool([...words, ...vm]);
  return { code, json: json as unknown as Result['json'] };
}

/** The guest is none: `qemu-io` at its device. */
async function io(target: string, command: string): Promise<string> {
  const device = `/machine/peripheral/virtio-disk${'abcdef'.indexOf(target.at(-1) ?? '')}/virtio-backend`;
  return await host.run(['qemu-monitor-command', NAME, '--hmp', `qemu-io -d ${device} "${command}"`]);
}

function xml(): string {
  const disk = (format: string, name: string, target: string, more = '', source = ''): string =>
    `<disk type='file' device='disk'><driver name='qemu' type='${format}'/><source file='${file(name)}'>${source}</source><target dev='${target}' bus='virtio'/>${more}</disk>`;
  const slices = `<slices><slice type='storage' offset='${MIB}' size='${8 * MIB}'/></slices>`;
  const encryption = `<encryption format='luks'><secret type='passphrase' uuid='${SECRET}'/></encryption>`;
  const devices = [
    disk('raw', 'plain.raw', 'vda'),
    disk('raw', 'shared.raw', 'vdb', '<shareable/>'),
    disk('qcow2', 'luks.qcow2', 'vdc', '', encryption),
    disk('raw', 'slice.raw', 'vdd', '', slices),
    disk('qcow2', 'clone.qcow2', 'vde'),
    disk('raw', 'whole.luks', 'vdf', '', encryption),
  ];
  return haltingDomainXml({ name: NAME, dir, devices: devices.join('\n') });
}

requires(
  'root',
  'libvirtd',
  'virsh',
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('of a libvirt domain', () => {
  beforeAll(async () => {
    host = await LibvirtHost.start();
    const secret = `<secret ephemeral='no' private='yes'><uuid>${SECRET}</uuid></secret>`;
    await host.run(['secret-define', await host.file(secret)]);
    await makeLuks(path.join(host.dir, 'luks.qcow2'));
    await makeLuks(path.join(host.dir, 'whole.luks'), 'luks');
    await host.run(['secret-set-value', SECRET, Buffer.from('abc123').toString('base64')]);
  }, 120_000);
  afterAll(async () => {
    await host[Symbol.asyncDispose]();
  });

  beforeEach(async () => {
    dir = path.join(host.dir, `round${round++}`);
    await mkdir(dir);
    await addHaltingFirmware(dir);
    const make = (...words: string[]) => execa('qemu-img', ['create', '-q', ...words], { cwd: dir });
    for (const name of ['plain', 'shared', 'slice', 'golden']) await make('-f', 'raw', `${name}.raw`, '16M');
    for (const name of ['luks.qcow2', 'whole.luks']) await copyFile(path.join(host.dir, name), file(name));
    // A relative name in the header: QEMU then tells of its backing file as an option.
    await make('-f', 'qcow2', '-b', 'golden.raw', '-F', 'raw', 'clone.qcow2');
    await host.run(['define', await host.file(xml())]);
    await host.run(['start', NAME]);
  }, 120_000);
  afterEach(async () => {
    await host.virsh(['destroy', NAME]);
    await host.virsh(['undefine', NAME]);
  });

  test(
    'what it cannot cut is left out with its reason, and the rest starts from its overlays',
    { timeout: 240_000 },
    async () => {
      await io('vdd', 'write -P 5 0 64k');
      const reasonsOf = (leftOut: Manifest['leftOut']): string =>
        leftOut.map(({ what, reason }) => `${what.slice(0, 3)} ${reason}`).join('\n');
      const check = await bridge('snapshot', 'create', '--check', '--require', 'crash');
      expect(check.code).toBe(0);
      const { code, json } = await bridge('snapshot', 'create', '--name', 's1', '--require', 'crash');
      expect(json.error?.message).toBeUndefined();
      expect(code).toBe(0);
      expect(json.disks.map(({ id }) => id)).toEqual(['vda', 'vdd', 'vde']);
      expect(json.disks[2]?.below).toMatchObject([{ file: file('golden.raw'), format: 'raw' }]);
      const reasons = reasonsOf(json.leftOut);
      expect(reasonsOf(check.json.leftOut)).toBe(reasons);
      expect(reasons).toMatch(/^vdb others may write to it at the same time/m);
      expect(reasons).toMatch(/^vdc it is encrypted, and libvirt would lay an overlay in clear text on it/m);
      expect(reasons).toMatch(
        /^vdf it is encrypted as a whole \(LUKS, not within qcow2\): its overlay would hold clear/m,
      );
      for (const target of ['vdc', 'vdf']) {
        const named = await bridge('snapshot', 'create', '--name', 's2', '--disk', target, '--require', 'crash');
        expect(named.code).toBe(2);
        expect(named.json.error?.message).toContain('it is encrypted');
      }
      await io('vdd', 'write -P 6 64k 64k');
      await host.run(['destroy', NAME]);
      await host.run(['start', NAME]);
      expect((await images({ host, name: NAME }))['vdd']).toBe(json.disks[1]?.overlay.file);
      expect(await io('vdd', 'read -P 5 0 64k')).not.toContain('verification failed');
      expect(await io('vdd', 'read -P 6 64k 64k')).not.toContain('verification failed');
      expect((await bridge('snapshot', 'commit', 's1')).json.error?.message).toBeUndefined();
      expect((await images({ host, name: NAME }))['vdd']).toBe(file('slice.raw'));
    },
  );

  test(
    'a snapshot of somebody else between plan and cut is seen: before the hold, or in what was cut',
    { timeout: 240_000 },
    async () => {
      await using domain = await LibvirtDomain.open({ domain: NAME, uri: host.uri }, {});
      await using reverter = new Reverter();
      const chosen = (await domain.disks()).filter(({ id }) => id === 'vda');
      const overlays = await planOverlays(chosen, 's1', '01234567', undefined);
      const { signal } = new AbortController();
      await makeOverlays(overlays, reverter, signal, () => undefined);
      await domain.prepare(overlays);
      await checkUnchanged(domain, overlays);
      const foreign = `vda,snapshot=external,driver=qcow2,file=${file('foreign.qcow2')}`;
      const others = ['vdb', 'vdc', 'vdd', 'vde', 'vdf'].flatMap((target) => ['--diskspec', `${target},snapshot=no`]);
      const words = ['--disk-only', '--atomic', '--no-metadata', '--diskspec', foreign, ...others];
      await host.run(['snapshot-create-as', NAME, ...words]);
      await expect(checkUnchanged(domain, overlays)).rejects.toMatchObject({
        code: 'E_CHANGED',
        message: expect.stringContaining('foreign.qcow2') as string,
      });
      // Nobody looked in time: the cut is taken, and what it lies on is told as it is.
      const cut = overlayCut(domain, overlays);
      await cut.send(60_000);
      reverter.keep();
      const findings = await cut.verify();
      expect(findings).toMatchObject([
        {
          isLost: false,
          doubt: expect.stringMatching(/lies on .*foreign\.qcow2 .* but its header names .*plain\.raw/) as string,
          chain: [
            { file: file('foreign.qcow2'), format: 'qcow2' },
            { file: file('plain.raw'), format: 'raw' },
          ],
        },
      ]);
      const proved = { level: 'filesystem', evidence: [] } as const;
      expect(compared({ ...proved, disks: [proved] }, findings, ['vda'])).toMatchObject({
        level: 'crash',
        disks: [{ level: 'crash' }],
      });
      // Shut off since: nobody can say any more that it lies on what it should.
      await host.run(['destroy', NAME]);
      const blind = compared({ ...proved, disks: [proved] }, await cut.verify(), ['vda']);
      expect(blind).toMatchObject({ level: 'crash', disks: [{ level: 'crash' }] });
      expect(blind.evidence.join()).toContain(
        'disk vda: whether somebody else changed the disk before the cut could not',
      );
    },
  );
});
