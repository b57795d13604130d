// Disks that must not be cut, and storage that is no disk: each is named with its reason, and the others are cut. Real
// QEMUs with a guest that does nothing; what they have on disk is looked at afterwards.
import { execa } from 'execa';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { planOverlays, readRoom } from '../../src/host/create/overlays.js';
import { PlainQemu } from '../../src/host/vm/plain-qemu.js';
import type { VmDisk } from '../../src/qmp/block-graph.js';
import { BareQemu, imagePath } from '../support/bare-qemu.js';
import { CutHarness, rootAndData } from '../support/cut-harness.js';
import { writerReport } from '../support/freeze-reports.js';
import { requires } from '../support/requires.js';
import { scratch } from '../support/scratch.js';

const two = rootAndData;
const bases = (): string[] => two.map((disk) => imagePath(at.folder, disk));
let at: CutHarness;
afterEach(async () => {
  await at[Symbol.asyncDispose]();
});

const image = async (file: string, format = 'raw'): Promise<string> => {
  await execa('qemu-img', ['create', '-q', '-f', format, file, '16M']);
  return file;
};
const disk = (name: string, node: string, more = ''): string[] => [
  '-blockdev',
  node,
  '-device',
  `virtio-blk-pci,id=${name},drive=node-${name},serial=${name}${more}`,
];

/** Three images that are one disk. */
async function quorum(images: string): Promise<string[]> {
  const words: string[] = [];
  for (const index of [0, 1, 2]) {
    const file = await image(`${images}/part${index}.img`);
    words.push('-blockdev', `driver=raw,node-name=part${index},file.driver=file,file.filename=${file}`);
  }
  const children = [0, 1, 2].map((index) => `children.${index}=part${index}`).join(',');
  return [...words, ...disk('quorum0', `driver=quorum,node-name=node-quorum0,vote-threshold=2,${children}`)];
}

async function shared(images: string): Promise<string[]> {
  const file = await image(`${images}/shared.img`);
  const node = `driver=raw,node-name=node-shared0,file.driver=file,file.filename=${file}`;
  return disk('shared0', node, ',share-rw=on');
}

async function throttledBelow(images: string): Promise<string[]> {
  const file = await image(`${images}/slow.qcow2`, 'qcow2');
  const below = `file.driver=throttle,file.throttle-group=slow,file.file.driver=file,file.file.filename=${file}`;
  return [
    '-object',
    'throttle-group,id=slow,x-iops-total=100000',
    ...disk('slow0', `driver=qcow2,node-name=node-slow0,${below}`),
  ];
}

async function otherFormat(images: string): Promise<string[]> {
  const file = await image(`${images}/other.vdi`, 'vdi');
  return disk('vdi0', `driver=vdi,node-name=node-vdi0,file.driver=file,file.filename=${file}`);
}

/** QEMU writes to a file that it has removed already. */
async function throwAway(images: string): Promise<string[]> {
  const file = await image(`${images}/kept.qcow2`, 'qcow2');
  const drive = `file=${file},format=qcow2,if=none,id=thrown,snapshot=on`;
  return ['-drive', drive, '-device', 'virtio-blk-pci,id=thrown0,drive=thrown,serial=thrown0'];
}

function folderOfHost(images: string): Promise<string[]> {
  const share = `local,id=share,path=${images},security_model=none`;
  return Promise.resolve(['-fsdev', share, '-device', 'virtio-9p-pci,id=share0,fsdev=share,mount_tag=share']);
}

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('what must not be cut', () => {
  test.each([
    ['a quorum', 'quorum0', quorum, 'it is several images in one (quorum)'],
    ['a disk that others may write to', 'shared0', shared, 'others may write to it at the same time (share-rw)'],
    ['a filter below the format', 'slow0', throttledBelow, 'a throttle node lies between its format and its file'],
    ['a format that takes no overlay', 'vdi0', otherFormat, 'its format is vdi, expected raw or qcow2'],
    ['a disk whose writes QEMU throws away', 'thrown0', throwAway, 'its image cannot be found from here'],
    ['a shared folder', 'share0', folderOfHost, 'a folder of the host: it lies in no disk'],
  ])('%s is left out with its reason, the others are cut, and every command works beside it', async (...given) => {
    const [, name, words, reason] = given;
    at = await CutHarness.start(two, words);
    const run = await at.create('s1');
    expect(run.error.message).toBe('none');
    expect(run).toMatchObject({ code: 0, manifest: { level: 'filesystem' } });
    expect(run.manifest.disks.map(({ id }) => id)).toEqual(['root0', 'data0']);
    const [left, ...others] = run.manifest.leftOut;
    expect(others).toEqual([]);
    expect(left?.what).toContain(name);
    expect(left?.reason).toContain(reason);
    // Nobody chose it: said where it is seen, and beside the level.
    expect(run.stderr).toContain(`not in the set: ${left?.what ?? ''}: ${reason}`);
    expect(run.manifest.evidence.join()).toContain(`not in the set: ${left?.what ?? ''}`);
    const named = await at.create('s2', '--disk', name);
    expect(named).toMatchObject({ code: 2, error: { code: 'E_DISK' } });
    expect(named.error.message).toContain(reason);
    expect((await at.bridge(['status'])).code).toBe(0);
    expect((await at.bridge(['snapshot', 'show', 's1'])).code).toBe(0);
    expect(await at.bridge(['recover'])).toMatchObject({ code: 0, json: { findings: [] } });
    expect((await at.bridge(['snapshot', 'commit', 's1'])).error.message).toBe('none');
    expect((await at.bridge(['snapshot', 'delete', 's1'])).error.message).toBe('none');
    expect(await at.filesInUse()).toEqual(expect.arrayContaining(bases()));
  });

  test('an image on the network is left out', async () => {
    using folder = scratch();
    await using server = await nbdServer(folder.path('nbd.img'), folder.path('nbd.sock'));
    const nbd = `driver=raw,node-name=node-nbd0,file.driver=nbd,file.server.type=unix,file.server.path=${server.path}`;
    at = await CutHarness.start(two, () => Promise.resolve(disk('nbd0', nbd)));
    const { code, manifest } = await at.create('s1');
    expect(code).toBe(0);
    expect(manifest.leftOut[0]?.reason).toContain('its image lies on the network: nbd+unix:');
  });

  test('a vhost-user disk, which is in no block graph, is left out', async () => {
    using folder = scratch();
    await using server = await vhostUserServer(folder.path('vhost.img'), folder.path('vhost.sock'));
    const memory = ['-object', 'memory-backend-memfd,id=ram,size=16M,share=on', '-machine', 'memory-backend=ram'];
    const device = ['-chardev', `socket,id=vhost,path=${server.path}`, '-device', 'vhost-user-blk-pci,chardev=vhost'];
    at = await CutHarness.start(two, () => Promise.resolve([...memory, ...device]));
    const { code, manifest, stderr } = await at.create('s1');
    expect(code).toBe(0);
    expect(manifest.leftOut).toMatchObject([{ what: expect.stringContaining('vhost-user-blk-pci') as string }]);
    expect(stderr).toContain('another process serves it (vhost)');
  });

  test('a disk that two VMs write to is cut by neither, so that they go on seeing one disk', async () => {
    at = await CutHarness.start(two, shared);
    using folder = scratch();
    const file = at.folder.path('images/shared.img');
    const node = `driver=raw,node-name=node-shared0,file.driver=file,file.filename=${file}`;
    await using other = await BareQemu.start(folder, [], disk('shared0', node, ',share-rw=on'));
    for (const qmp of [at.vm.qmp, other.qmp]) {
      const run = await at.create('both', '--qmp', qmp, '--disk', 'shared0', '--require', 'crash');
      expect(run.error.message).toContain('others may write to it at the same time');
    }
    await other.write('shared0', 7, 0, 64);
    const line = 'qemu-io -d /machine/peripheral/shared0/virtio-backend "read -P 7 0 64k"';
    const read = await at.vm.control.execute('human-monitor-command', { 'command-line': line });
    expect(String(read)).not.toContain('verification failed');
  });

  test('with nothing left to cut, every reason is told', async () => {
    at = await CutHarness.start([], async (images) => [...(await quorum(images)), ...(await shared(images))]);
    const run = await at.create('s1', '--require', 'crash');
    expect(run).toMatchObject({ code: 2, error: { code: 'E_DISK' } });
    expect(run.error.message).toMatch(/no writable disk to cut .*quorum0.*several images.*shared0.*share-rw/);
  });

  describe('--check', () => {
    test('says what would be cut, left out and reached, and changes nothing', async () => {
      at = await CutHarness.start(two, quorum);
      const before = at.images();
      const words = ['snapshot', 'create', '--check'];
      expect(await at.bridge(words)).toMatchObject({
        code: 0,
        json: {
          disks: [{ id: 'root0', format: 'raw' }, { id: 'data0' }],
          leftOut: [{ reason: 'it is several images in one (quorum)' }],
          agent: { kind: 'bridge' },
          level: { asked: 'filesystem', atMost: 'filesystem', why: 'no writer in the guest speaks for an application' },
          rooms: [{ folder: at.folder.path('images'), needed: 128 * 1024 * 1024 }],
        },
      });
      at.agent.writers = [writerReport('50-db')].map(({ name, path: file, kind, required, rank }) => {
        return { name, path: file, kind, required, rank, phases: ['freeze'] };
      });
      const text = await at.text(words);
      expect(text).toContain('level application at most (application asked for)');
      expect(text).toContain('left out: quorum0');
      expect(await at.bridge([...words, '--require', 'application'])).toMatchObject({ code: 0 });
      expect(await at.bridge([...words, '--min-free', '99999999'])).toMatchObject({ code: 5 });
      at.agent.kind = 'stock';
      expect(await at.bridge([...words, '--require', 'application'])).toMatchObject({
        code: 4,
        json: { level: { atMost: 'filesystem' } },
      });
      expect(await at.bridge([...words, '--qga', at.folder.path('none.sock')])).toMatchObject({
        code: 4,
        json: { level: { atMost: 'crash', why: expect.stringContaining('ENOENT') as string } },
      });
      expect(at.images()).toEqual(before);
      expect(await at.ourNodes()).toEqual([]);
      expect(existsSync(at.folder.path('state'))).toBe(false);
      expect(at.agent.commands.filter((name) => name.includes('freeze') && !name.endsWith('status'))).toEqual([]);
    });
  });

  describe('names of overlays', () => {
    test('hold the set, so that VMs that share an overlay folder never meet', async () => {
      at = await CutHarness.start(two);
      using folder = scratch();
      await using other = await BareQemu.start(folder, two);
      const words = ['--overlay-dir', at.folder.path('images'), '--require', 'crash'];
      expect((await at.create('s1', ...words)).error.message).toBe('none');
      const second = await at.create('s1', ...words, '--qmp', other.qmp, '--vm', 'other');
      expect(second.error.message).toBe('none');
      expect(at.images()).toHaveLength(6);
    });

    test('that are taken are not told to be removed: they may be what another VM writes to', async () => {
      at = await CutHarness.start(two);
      const [overlay] = await planOverlays([await diskOf('root0')], 's1', '01234567', undefined);
      if (overlay === undefined) throw new Error('no overlay');
      expect(overlay.file).toBe(at.folder.path('images/root0.s1-01234567.qcow2'));
      writeFileSync(overlay.file, '');
      const refused = readRoom([overlay], 0);
      await expect(refused).rejects.toMatchObject({ code: 'E_NAME_TAKEN' });
      await expect(refused).rejects.not.toThrow('remove');
    });
  });
});

requires(
  'root',
  'qemu-system-x86_64',
  'qemu-img',
)('a device', () => {
  test('is one by what it is, and not by its name', async () => {
    at = await CutHarness.start(two);
    const root0 = await diskOf('root0');
    const plan = async (file: string) =>
      await planOverlays([{ ...root0, file, name: file }], 's1', '01234567', undefined);
    const folder = mkdtempSync(path.join(tmpdir(), 'devel-'));
    const inMemory = mkdtempSync('/dev/shm/fsb-');
    try {
      const device = path.join(folder, 'disk');
      await execa('mknod', [device, 'b', '7', '255']);
      await expect(plan(device)).rejects.toThrow('is a device: say with --overlay-dir');
      writeFileSync(path.join(inMemory, 'disk.raw'), '');
      expect((await plan(path.join(inMemory, 'disk.raw')))[0]?.file).toBe(`${inMemory}/disk.s1-01234567.qcow2`);
    } finally {
      for (const each of [folder, inMemory]) rmSync(each, { recursive: true });
    }
  });
});

async function diskOf(name: string): Promise<VmDisk> {
  await using monitor = await PlainQemu.connect(at.vm.qmp, {});
  const found = (await monitor.disks()).find(({ id }) => id === name);
  if (found === undefined) throw new Error(`no disk ${name}`);
  return found;
}

async function nbdServer(file: string, socket: string) {
  await image(file);
  return await server('qemu-nbd', ['--format', 'raw', '--persistent', '--socket', socket, file], socket);
}

async function vhostUserServer(file: string, socket: string) {
  await image(file);
  const node = `driver=file,node-name=disk,filename=${file}`;
  const served = `type=vhost-user-blk,id=disk,node-name=disk,addr.type=unix,addr.path=${socket},writable=on`;
  return await server('qemu-storage-daemon', ['--blockdev', node, '--export', served], socket);
}

async function server(program: string, words: readonly string[], socket: string) {
  const child = execa(program, words, { reject: false });
  const stop = async (): Promise<void> => {
    child.kill();
    await child;
  };
  await expect.poll(() => existsSync(socket), { timeout: 10_000 }).toBe(true);
  return { path: socket, [Symbol.asyncDispose]: stop };
}
