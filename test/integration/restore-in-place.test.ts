// `backup restore --in-place`: the images of a VM that is shut off become what they were at a run; only what differs is
// written, and nothing that anybody needs as it is.
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { execa, execaSync } from 'execa';
import { afterEach, expect, test, vi } from 'vitest';
import { BackupHarness } from '../support/backup-harness.js';
import { difference, type State } from '../support/restored-runs.js';
import type { BareDisk } from '../support/bare-qemu.js';
import type { Run } from '../support/cut-harness.js';
import { requires } from '../support/requires.js';

const two: readonly BareDisk[] = [
  { name: 'root0', format: 'raw' },
  { name: 'data0', format: 'qcow2' },
];
let vm: BackupHarness;
afterEach(async () => {
  vi.unstubAllEnvs();
  await vm[Symbol.asyncDispose]();
});

/** Two runs of a VM, which then writes on. */
const start = async (): Promise<string[]> => {
  vm = await BackupHarness.start(two);
  const runs: string[] = [];
  for (const pattern of [1, 2]) {
    for (const { name } of two) await vm.write(name, pattern, 256 * pattern, 4096);
    const made = await vm.run();
    expect(made.error.message).toBe('none');
    runs.push(made.made.run);
  }
  await vm.write('root0', 3, 5000, 40);
  await vm.write('data0', 3, 1024, 64);
  await vm.zero('data0', 2048, 64);
  return runs;
};

const image = (name: string): string => vm.at.folder.path(`images/${name}.${name === 'root0' ? 'raw' : 'qcow2'}`);
const inPlace = async (run: string, ...words: readonly string[]): Promise<Run> =>
  await vm.at.bridge(['backup', 'restore', run, '--in-place', '--repo', vm.repository, ...words]);
const disksOf = (run: Run): { id: string; bytes: number }[] =>
  (run.json as { disks: { id: string; bytes: number }[] }).disks;

const expectImages = async (state: State | undefined): Promise<void> => {
  for (const { name, format } of two) {
    const raw = vm.at.folder.path('read.raw');
    await execa('qemu-img', ['convert', '-f', format, '-O', 'raw', image(name), raw]);
    expect(difference(name, readFileSync(raw), state?.get(name))).toBeUndefined();
  }
};
const restart = async (): Promise<void> => {
  await vm.at.start(two.map((disk) => ({ ...disk, file: image(disk.name) })));
};

/** Something happens before qemu-img does one of its commands. */
const beforeQemuImg = (command: string, script: string): void => {
  const bin = vm.at.folder.path('bin');
  mkdirSync(bin);
  const real = execaSync('sh', ['-c', 'command -v qemu-img']).stdout;
  const text = `#!/bin/sh\nif [ "$1" = ${command} ]; then\n${script}\nfi\nexec ${real} "$@"\n`;
  writeFileSync(`${bin}/qemu-img`, text, { mode: 0o755 });
  vi.stubEnv('PATH', `${bin}:${process.env['PATH'] ?? ''}`);
};

/** Somebody who may write to the repository changes what a run says of its disk. */
const forge = (run: string, source: object): void => {
  const file = vm.stored(run, 'manifest.json');
  const manifest = JSON.parse(readFileSync(file, 'utf8')) as { disks: { id: string; source: object }[] };
  for (const disk of manifest.disks) if (disk.id === 'data0') disk.source = { ...disk.source, ...source };
  chmodSync(file, 0o600);
  writeFileSync(file, JSON.stringify(manifest));
};

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('a restore in place', () => {
  test('goes back over a chain whose name is longer than a header has room for', async () => {
    vm = await BackupHarness.start(two);
    let made = await vm.run();
    for (let pattern = 1; pattern <= 12; pattern++) {
      await vm.write('data0', pattern, 256 * pattern, 64);
      made = await vm.run();
      expect(made.error.message).toBe('none');
    }
    await vm.write('data0', 200, 0, 4096);
    await vm.at.vm.quit();
    const restored = await inPlace(made.made.run, '--yes');
    expect(restored.error.message).toBe('none');
    await expectImages(vm.states.get(made.made.run));
  });

  test('writes what differs and nothing else, and the next backup is an increment', async () => {
    const [first = '', second = ''] = await start();
    // The newest run need not know every disk.
    expect((await vm.run('--disk', 'data0')).made.disks).toHaveLength(1);
    await vm.at.vm.quit();
    const dry = await inPlace(second, '--dry-run');
    expect(dry).toMatchObject({ code: 0, json: { dryRun: true, verified: false } });
    await expectImages(vm.state());
    const restored = await inPlace(second, '--yes');
    expect(restored.error.message).toBe('none');
    expect(restored.json).toMatchObject({ vm: 'bare', run: second, dryRun: false, verified: true });
    expect(disksOf(restored)).toEqual(disksOf(dry));
    // 40 KiB within one cluster of the one, two clusters of the other.
    expect(disksOf(restored).map(({ id, bytes }) => [id, bytes])).toEqual([
      ['root0', 65_536],
      ['data0', 131_072],
    ]);
    await expectImages(vm.states.get(second));
    expect(vm.at.images()).toEqual(['data0.qcow2', 'root0.raw']);
    expect(readdirSync(vm.at.state())).toEqual(['vm.json']);

    vm.became(vm.states.get(second) ?? new Map());
    await restart();
    await vm.write('data0', 4, 0, 64);
    const next = await vm.run();
    // A raw image keeps no checkpoints while QEMU is away.
    expect(next.made.disks.map(({ kind }) => kind)).toEqual(['full', 'incremental']);
    expect(await vm.differences(next.made.run)).toEqual([]);
    await vm.at.vm.quit();
    expect((await inPlace(first, '--yes', '--disk', 'data0')).error.message).toBe('none');
    await expectImages(new Map([...vm.state(), ['data0', vm.states.get(first)?.get('data0') ?? Buffer.alloc(0)]]));
  });

  test('is refused while the VM runs, for images that a set or another image lies on, and for a disk of another size', async () => {
    const [first = ''] = await start();
    expect(await inPlace(first, '--yes')).toMatchObject({ code: 2, error: { code: 'E_VM_RUNS' } });
    const clone = vm.at.folder.path('images/clone.qcow2');
    const state = vm.state();
    await vm.at.vm.quit();
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', image('data0'), '-F', 'qcow2', clone]);
    const cloned = await inPlace(first, '--yes');
    expect(cloned).toMatchObject({ code: 2, error: { code: 'E_IN_USE' } });
    expect(cloned.error.message).toContain('clone.qcow2 names it');
    await execa('rm', [clone]);
    // Somebody has it open, as another VM would.
    const holder = execa('sh', ['-c', 'exec 3<"$1"; echo open; exec sleep 60', 'sh', image('root0')], {
      reject: false,
    });
    await once(holder.stdout, 'data');
    expect(await inPlace(first, '--yes')).toMatchObject({ code: 2, error: { code: 'E_IN_USE' } });
    holder.kill();
    await holder;
    await restart();
    expect((await vm.at.create('s1')).error.message).toBe('none');
    await vm.at.vm.quit();
    expect(await inPlace(first, '--yes')).toMatchObject({ code: 2, error: { code: 'E_IN_USE' } });
    expect((await vm.at.bridge(['snapshot', 'delete', 's1', '--yes'])).error.message).toBe('none');
    await expectImages(state);
    await execa('qemu-img', ['resize', '-q', '-f', 'raw', image('root0'), '24M']);
    expect(await inPlace(first, '--yes')).toMatchObject({ code: 2, error: { code: 'E_TARGET' } });
    await execa('qemu-img', ['resize', '-q', '-f', 'raw', '--shrink', image('root0'), '16M']);
    expect(await inPlace(first)).toMatchObject({ code: 4, error: { code: 'E_DECLINED' } });
    await expectImages(state);
    expect(vm.at.images()).toEqual(['data0.qcow2', 'root0.raw']);
  });

  test('goes onto the images that this host knows, and not onto those that the repository names', async () => {
    const [, second = ''] = await start();
    const victim = vm.at.folder.path('images/victim.qcow2');
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', victim, '16M']);
    const bytes = readFileSync(victim);
    await vm.at.vm.quit();
    forge(second, { file: victim });
    const restored = await inPlace(second, '--yes');
    expect(restored).toMatchObject({ code: 2, error: { code: 'E_NO_IMAGE' } });
    expect(restored.error.message).toContain(`expected ${victim} (serial data0)`);
    expect(restored.error.message).toContain(`found ${image('data0')} (serial data0)`);
    expect(await vm.run()).toMatchObject({ code: 2, error: { code: 'E_NO_IMAGE' } });
    expect(readFileSync(victim)).toEqual(bytes);
    // No more does it choose words for QEMU.
    forge(second, { format: 'raw,file.driver=null-co' });
    expect(await inPlace(second, '--yes')).toMatchObject({ code: 2, error: { code: 'E_NO_BACKUP' } });
    await expectImages(vm.state());
  });

  test.each([
    ['image', { name: 'data0', format: 'qcow2' }],
    ['serial', { name: 'data0', format: 'qcow2', serial: 'another' }],
  ] as const)('is refused onto a disk of another %s, unless the image is named', async (_what, disk) => {
    const [first = ''] = await start();
    await vm.at.vm.quit();
    const other = vm.at.folder.path('images/other.qcow2');
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', other, '16M']);
    await vm.at.start([
      { ...two[0], name: 'root0', format: 'raw', file: image('root0') },
      { ...disk, file: other },
    ]);
    expect((await vm.run('--allow-lower', '--require', 'crash')).error.message).toBe('none');
    await vm.at.vm.quit();
    const bytes = readFileSync(other);
    const words = ['--yes', '--disk', 'data0'];
    const refused = await inPlace(first, ...words);
    expect(refused).toMatchObject({ code: 2, error: { code: 'E_NO_IMAGE' } });
    expect(refused.error.message).toContain(image('data0'));
    expect(refused.error.message).toContain(other);
    expect(readFileSync(other)).toEqual(bytes);
    expect(await inPlace(first, ...words, '--image', `root0=${other}`)).toMatchObject({ error: { code: 'E_DISK' } });
    expect((await inPlace(first, ...words, '--image', `data0=${other}`)).error.message).toBe('none');
    const raw = vm.at.folder.path('read.raw');
    await execa('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', other, raw]);
    expect(difference('data0', readFileSync(raw), vm.states.get(first)?.get('data0'))).toBeUndefined();
  });

  test('onto an image that was written to after it was compared changes nothing', async () => {
    const [, second = ''] = await start();
    await vm.at.vm.quit();
    beforeQemuImg('map', `printf x | dd of="${image('root0')}" bs=1 seek=9000000 conv=notrunc 2>/dev/null`);
    const restored = await inPlace(second, '--yes');
    expect(restored).toMatchObject({ code: 2, error: { code: 'E_NO_IMAGE' } });
    expect(restored.error.message).toContain('was written to after it was compared');
    const root0 = vm.state().get('root0');
    root0?.write('x', 9_000_000);
    await expectImages(new Map([...vm.state(), ['root0', root0 ?? Buffer.alloc(0)]]));
    expect(vm.at.images()).toEqual(['data0.qcow2', 'root0.raw']);
  });

  test('that has begun to write is not ended by its time limit', async () => {
    const [, second = ''] = await start();
    await vm.at.vm.quit();
    beforeQemuImg('commit', 'sleep 11');
    expect((await inPlace(second, '--yes', '--timeout', '10', '--disk', 'data0')).error.message).toBe('none');
    const data0 = vm.states.get(second)?.get('data0') ?? Buffer.alloc(0);
    await expectImages(new Map([...vm.state(), ['data0', data0]]));
  });

  test('leaves a file alone that has the name of its draft', async () => {
    const [, second = ''] = await start();
    await vm.at.vm.quit();
    const draft = `${image('data0')}.restore-${second.slice(-8)}`;
    writeFileSync(draft, 'theirs');
    expect(await inPlace(second, '--yes')).toMatchObject({ code: 2, error: { code: 'E_NAME_TAKEN' } });
    expect(readFileSync(draft, 'utf8')).toBe('theirs');
  });

  test('of a run that is damaged changes nothing', async () => {
    const [, second = ''] = await start();
    const file = vm.stored(second, 'data0.qcow2');
    const bytes = readFileSync(file);
    bytes[bytes.length - 100] = (bytes[bytes.length - 100] ?? 0) ^ 1;
    await execa('chmod', ['600', file]);
    writeFileSync(file, bytes);
    await vm.at.vm.quit();
    expect(await inPlace(second, '--yes')).toMatchObject({ code: 5, error: { code: 'E_VERIFY' } });
    await expectImages(vm.state());
    expect(existsSync(vm.at.state('restore.json'))).toBe(false);
  });

  test('killed before it writes is forgotten by recover, killed while it writes is told of until it is done again', async () => {
    const [, second = ''] = await start();
    await vm.at.vm.quit();
    const journal = vm.at.state('restore.json');
    const draft = `${image('data0')}.restore-${second.slice(-8)}`;
    // What a killed tool leaves: its owner is gone.
    const left = {
      format: 1,
      operation: 'restore',
      since: new Date().toISOString(),
      owner: { pid: 1, startTicks: '0', bootId: 'another boot', pidNamespace: 'pid:[1]' },
      drafts: [draft],
    };
    writeFileSync(draft, '');
    writeFileSync(journal, JSON.stringify({ ...left, partial: [] }));
    const forgotten = await vm.at.bridge(['recover']);
    expect(forgotten.json['findings']).toMatchObject([{ kind: 'restore-unfinished', status: 'done' }]);
    expect([existsSync(draft), existsSync(journal)]).toEqual([false, false]);

    writeFileSync(draft, '');
    const partial = [{ image: image('data0'), repository: vm.repository, run: second }];
    writeFileSync(journal, JSON.stringify({ ...left, partial }));
    const told = await vm.at.bridge(['recover']);
    expect(told.code).toBe(8);
    expect(told.json['findings']).toMatchObject([{ status: 'done' }, { kind: 'restore-unfinished', status: 'yours' }]);
    expect(JSON.stringify(told.json)).toContain(`backup restore ${second} --in-place`);
    expect(existsSync(draft)).toBe(false);
    await restart();
    expect(await vm.run()).toMatchObject({ code: 2, error: { code: 'E_UNFINISHED' } });
    expect(await vm.at.create('s1')).toMatchObject({ code: 2, error: { code: 'E_UNFINISHED' } });
    await vm.at.vm.quit();
    expect((await inPlace(second, '--dry-run')).error.message).toBe('none');
    // Another disk than the one that is in part.
    expect((await inPlace(second, '--yes', '--disk', 'root0')).error.message).toBe('none');
    expect(existsSync(journal)).toBe(true);
    expect((await inPlace(second, '--yes')).error.message).toBe('none');
    await expectImages(vm.states.get(second));
    expect([existsSync(draft), existsSync(journal)]).toEqual([false, false]);
    expect((await vm.at.bridge(['recover'])).json['findings']).toEqual([]);
  });

  test('killed with its qemu-img in the middle of a write, goes on when it is called again', async () => {
    const large: BareDisk = { name: 'data0', format: 'qcow2', megabytes: 128 };
    vm = await BackupHarness.start([large]);
    await vm.write('data0', 1, 0, 120 * 1024);
    const { made } = await vm.run();
    await vm.write('data0', 2, 0, 120 * 1024);
    await vm.at.vm.quit();
    const words = ['backup', 'restore', made.run, '--in-place', '--yes', '--repo', vm.repository];
    const child = vm.at.spawn(words);
    const merging = (): number | undefined =>
      readdirSync('/proc')
        .filter((name) => /^\d+$/.test(name))
        .map(Number)
        .find((pid) => isMergeOf(pid, image('data0')));
    let pid = merging();
    while (pid === undefined && child.exitCode === null) {
      await new Promise(setImmediate);
      pid = merging();
    }
    child.kill('SIGKILL');
    if (pid !== undefined) process.kill(pid, 'SIGKILL');
    await child;
    expect(pid).toBeDefined();
    const told = await vm.at.bridge(['recover']);
    expect(told.json['findings']).toMatchObject([{ status: 'done' }, { kind: 'restore-unfinished', status: 'yours' }]);
    expect(JSON.stringify(told.json)).toContain('holds two instants');
    expect((await vm.at.bridge(words)).error.message).toBe('none');
    const raw = vm.at.folder.path('read.raw');
    await execa('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', image('data0'), raw]);
    expect(difference('data0', readFileSync(raw), vm.states.get(made.run)?.get('data0'))).toBeUndefined();
    expect((await vm.at.bridge(['recover'])).json['findings']).toEqual([]);
  });
});

function isMergeOf(pid: number, image: string): boolean {
  try {
    const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    return words.includes('commit') && words.some((word) => word.startsWith(`${image}.restore-`));
  } catch {
    return false; // it has just ended
  }
}
