// A libvirt domain is its UUID: under its own name, under a name of the configuration, and at a monitor of its QEMU.
import { readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { addHaltingFirmware, haltingDomainXml } from '../support/halting-domain.js';
import { LibvirtHost } from '../support/libvirt.js';
import { requires } from '../support/requires.js';
import { runTool, type Run } from '../support/run-tool.js';

const uuid = '5e1f0000-1111-4222-8333-444444444444';
let host: LibvirtHost;

async function tool(...words: readonly string[]): Promise<Run> {
  return await runTool([...words, '--state-dir', path.join(host.dir, 'state'), '--json']);
}

function domainXml(): string {
  const file = (name: string): string => path.join(host.dir, name);
  const monitor = `<qemu:arg value='-qmp'/><qemu:arg value='unix:${file('own.sock')},server=on,wait=off'/>`;
  return haltingDomainXml({
    ...{ name: 'twin', uuid, dir: host.dir },
    devices: `<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='${file('twin.qcow2')}'/><target dev='vda' bus='virtio'/></disk>`,
    more: `<qemu:commandline>${monitor}</qemu:commandline>`,
  });
}

requires(
  'root',
  'libvirtd',
  'virsh',
  'qemu-system-x86_64',
  'qemu-img',
)('a libvirt domain', () => {
  beforeAll(async () => {
    host = await LibvirtHost.start();
    await addHaltingFirmware(host.dir);
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', path.join(host.dir, 'twin.qcow2'), '16M']);
    await host.run(['define', await host.file(domainXml())]);
    await host.run(['start', 'twin']);
  }, 120_000);
  afterAll(async () => {
    await host[Symbol.asyncDispose]();
  });

  test('meets the same sets by each of its names, running or shut off', { timeout: 120_000 }, async () => {
    const libvirt = ['--vm', 'libvirt:twin', '--connect', host.uri];
    const made = await tool('snapshot', 'create', '--name', 's1', '--require', 'crash', ...libvirt);
    expect(made).toMatchObject({ code: 0, json: { set: 's1', vm: { uuid } } });
    expect(readdirSync(path.join(host.dir, 'state'))).toEqual([uuid]);
    const config = path.join(host.dir, 'vms.json');
    writeFileSync(config, JSON.stringify({ vms: { db1: { libvirt: uuid, connect: host.uri } } }));
    const monitor = ['--qmp', path.join(host.dir, 'own.sock')];
    const configured = ['--vm', 'db1', '--config', config];
    for (const way of [libvirt, configured, monitor, ['--vm', uuid], ['--vm', 'twin']]) {
      const { json } = await tool('snapshot', 'list', ...way);
      expect(json['sets'], way.join(' ')).toMatchObject([{ set: 's1' }]);
    }
    expect((await tool('status', ...configured)).json['monitor']).toMatchObject({ identity: { kind: 'uuid', uuid } });
    await host.run(['destroy', 'twin']);
    for (const way of [libvirt, configured, ['--vm', uuid]]) {
      const { json } = await tool('snapshot', 'list', ...way);
      expect(json['sets'], way.join(' ')).toMatchObject([{ set: 's1' }]);
    }
    await host.run(['start', 'twin']);
    expect(await tool('snapshot', 'commit', 's1', ...configured)).toMatchObject({ code: 0 });
    expect(readdirSync(path.join(host.dir, 'state'))).toEqual([uuid]);
  });

  test('made anew under the name of another has none of its sets', { timeout: 60_000 }, async () => {
    const libvirt = ['--vm', 'libvirt:twin', '--connect', host.uri];
    expect(await tool('snapshot', 'create', '--name', 's2', '--require', 'crash', ...libvirt)).toMatchObject({
      code: 0,
    });
    await host.run(['destroy', 'twin']);
    await host.run(['undefine', 'twin']);
    await host.run(['define', await host.file(domainXml().replace(uuid, uuid.replace('5', '6')))]);
    expect((await tool('snapshot', 'list', ...libvirt)).json['sets']).toEqual([]);
    const shown = await tool('snapshot', 'show', 's2', ...libvirt);
    expect(shown).toMatchObject({ code: 2, json: { error: { code: 'E_NO_SET' } } });
    expect(JSON.stringify(shown.json['error'])).toContain(`--vm ${uuid}`);
    expect((await tool('snapshot', 'list', '--vm', uuid)).json['sets']).toMatchObject([{ set: 's1' }, { set: 's2' }]);
  });
});
