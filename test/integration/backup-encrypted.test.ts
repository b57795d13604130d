// Encrypted backups of a real QEMU: every run is restored by the tool and by qemu-img alone, and compared byte for byte with
// what the disks held at its cut; the key is looked for wherever it must not be.
import { chmodSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { BareDisk } from '../support/bare-qemu.js';
import { BackupHarness } from '../support/backup-harness.js';
import { expectAllGood } from '../support/expect-all-good.js';
import { requires } from '../support/requires.js';

vi.setConfig({ testTimeout: 120_000 });
const KEY = 'Dq8mW0yKkU5v1oYp2nTtB7xZrJ4hG6sLfCiE9aVbNgM=';
const OTHER_KEY = 'a passphrase that is no random one';
/** Text that a guest wrote. */
const CLEAR = Buffer.alloc(4096, 0x5a);

const disks: readonly BareDisk[] = [
  { name: 'root0', format: 'raw' },
  { name: 'data0', format: 'qcow2', discard: true },
];
let vm: BackupHarness;
beforeEach(async () => {
  vm = await BackupHarness.start(disks);
  vm.keyFile = keyFile('key', KEY);
  await vm.write('root0', 0x5a, 0, 512);
  await vm.write('data0', 0x5a, 64, 1024);
});
afterEach(async () => {
  await vm[Symbol.asyncDispose]();
});

function keyFile(name: string, text: string, mode = 0o600): string {
  writeFileSync(vm.path(name), text, { mode });
  return vm.path(name);
}

/** Files in the folder that hold what nobody may read, by their names. */
const leaks = (folder: string, secret: string | Buffer): string[] =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => {
    const file = join(folder, name);
    return statSync(file).isFile() && readFileSync(file).includes(secret);
  });
/** Looks at the words and environment of every process until it is told to stop. */
const watchProcesses = () => {
  const seen = new Set<string>();
  const stop = new AbortController();
  const over = (async () => {
    while (!stop.signal.aborted) {
      for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
        for (const of of ['cmdline', 'environ']) {
          try {
            const words = readFileSync(`/proc/${pid}/${of}`, 'latin1');
            if (words.includes(KEY)) seen.add(words);
            if (words.includes('secret,id=')) seen.add('qemu-img was seen');
          } catch {
            // It has ended.
          }
        }
      }
      await sleep(5);
    }
  })();
  return {
    async end(): Promise<string[]> {
      stop.abort();
      await over;
      return [...seen];
    },
  };
};

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('encrypted backups', () => {
  test('a full run and increments, compressed or not, are each what the disks held; nothing is in clear text', async () => {
    const processes = watchProcesses();
    const full = await vm.run();
    expect(full.error.message).toBe('none');
    expect(full.made.disks.map(({ file }) => [file.name, file.encryption])).toEqual([
      ['root0.qcow2.luks', { format: 'luks', cipher: 'aes-256-xts-plain64' }],
      ['data0.qcow2.luks', { format: 'luks', cipher: 'aes-256-xts-plain64' }],
    ]);
    await vm.write('data0', 3, 128, 64);
    await vm.discard('data0', 512, 256);
    const second = await vm.run('--compress', 'zstd', '--incremental');
    expect(second.error.message).toBe('none');
    expect(second.made.disks[1]).toMatchObject({ kind: 'incremental', copiedBytes: 320 * 1024 });
    await vm.at.vm.control.execute('block_resize', { 'node-name': 'node-data0', size: 24 * 1024 * 1024 });
    vm.resized('data0', 24);
    await vm.write('data0', 4, 20 * 1024, 128);
    const third = await vm.run('--compress', 'zlib', '--limit', '50');
    expect(third.made.disks.map(({ kind }) => kind)).toEqual(['incremental', 'full']);
    await vm.write('root0', 5, 1024, 128);
    await vm.write('data0', 6, 20 * 1024, 64);
    const fourth = await vm.run('--incremental');
    expect(fourth.error.message).toBe('none');
    await expectAllGood(vm);
    for (const { made } of [second, fourth]) expect(await vm.differencesByHand(made.run)).toEqual([]);

    expect(await vm.backup('verify', ...vm.key)).toMatchObject({ code: 0 });
    expect(await processes.end()).toEqual(['qemu-img was seen']);
    for (const folder of [vm.repository, vm.at.state()]) expect(leaks(folder, KEY)).toEqual([]);
    expect(leaks(vm.repository, CLEAR)).toEqual([]);
    // Not even the header of an image.
    expect(leaks(vm.repository, Buffer.from('QFI\xfb', 'latin1'))).toEqual([]);
    expect(await vm.at.ourObjects()).toEqual([]);
    expect(await vm.at.ourNodes()).toEqual([]);
    const listed = await vm.backup('list');
    expect(listed.json).toMatchObject({ vms: [{ runs: Array.from({ length: 4 }, () => ({ isEncrypted: true })) }] });
  });

  test('are verified from outside without their key, which is said', async () => {
    const { made } = await vm.run();
    const verify = async (...words: string[]) => await vm.backup('verify', ...words);
    const without = await verify();
    expect(without).toMatchObject({ code: 11, json: { runs: [{ run: made.run, problems: [] }] } });
    expect(JSON.stringify(without.json)).toContain('data0.qcow2.luks of run');
    const wrong = await verify('--key-file', keyFile('other', OTHER_KEY));
    expect(wrong.code).toBe(11);
    expect(JSON.stringify(wrong.json)).toContain('does not open it (it ends without a newline, which would count)');
    expect((await vm.backup('list')).json).toMatchObject({ vms: [{ runs: [{ verified: { unchecked: [{}, {}] } }] }] });
    expect(await verify(...vm.key)).toMatchObject({ code: 0, json: { runs: [{ problems: [], unchecked: [] }] } });
    const file = vm.stored(made.run, 'data0.qcow2.luks');
    const bytes = readFileSync(file);
    // In the slot of the key: it looks like another key, and is not.
    bytes.writeUInt8(bytes.readUInt8(5000) ^ 1, 5000);
    writeFileSync(file, bytes);
    const damaged = await verify(...vm.key);
    expect(damaged.code).toBe(10);
    expect(JSON.stringify(damaged.json)).toContain('extents of');
    // A look from outside, at a file that somebody put back, does not take that away.
    bytes.writeUInt8(bytes.readUInt8(5000) ^ 1, 5000);
    writeFileSync(file, bytes);
    expect((await verify()).code).toBe(10);
    // It is no mistaken key, and ends its chain.
    const next = await vm.run();
    expect(next.made.disks[1]).toMatchObject({
      kind: 'full',
      why: expect.stringContaining('was found damaged') as string,
    });
  });

  test('are not read without their key, and nothing is begun', async () => {
    const { made } = await vm.run();
    const target = vm.path('restored');
    const noKey = await vm.backup('restore', made.run, target);
    expect(noKey).toMatchObject({ code: 2, error: { code: 'E_KEY' } });
    expect(noKey.error.message).toContain(`run ${made.run} is encrypted: give its key`);
    const wrong = await vm.backup('restore', made.run, target, '--key-file', keyFile('other', OTHER_KEY));
    expect(wrong).toMatchObject({ code: 2, error: { code: 'E_KEY' } });
    expect(wrong.error.message).toContain(`of run ${made.run}: the key of ${vm.path('other')} does not open it`);
    expect(readdirSync(vm.path('')).filter((name) => name.includes('restored'))).toEqual([]);
    // The newline of an editor.
    const line = await vm.backup('restore', made.run, target, '--key-command', `echo ${KEY}`);
    expect(line.error.message).toContain('it ends with a newline, which counts');
    const right = await vm.backup('restore', made.run, target, '--key-command', `printf %s ${KEY}`);
    expect(right.error.message).toBe('none');
  });

  test('are no base where the header of an image names another file', async () => {
    const first = await vm.run();
    const { made } = await vm.run();
    const file = vm.stored(made.run, 'data0.qcow2.luks');
    chmodSync(file, 0o600);
    const luks = { driver: 'luks', 'key-secret': 'key', file: { driver: 'file', filename: file } };
    const image = `json:${JSON.stringify({ driver: 'qcow2', backing: null, file: luks })}`;
    const object = `secret,id=key,file=${vm.keyFile ?? ''}`;
    await execa('qemu-img', ['rebase', '--object', object, '-u', '-F', 'qcow2', '-b', '../x/data0.qcow2', image]);
    const next = await vm.run();
    expect(next.made.disks.map(({ base }) => base?.run)).toEqual([made.run, first.made.run]);
    const restored = await vm.backup('restore', made.run, vm.path('restored'), '--no-verify', ...vm.key);
    expect(restored.error.code).toBe('E_CHAIN');
    expect(restored.error.message).toContain('its header names ../x/data0.qcow2 below it, expected json:{');
  });

  test.each([
    ['readable by others', () => ['--key-file', keyFile('open', KEY, 0o644)], 'mode 644'],
    ['that is not there', () => ['--key-file', vm.path('none')], 'no such file'],
    ['that is no text', () => ['--key-file', keyFile('binary', '\0\u{1}')], 'is no text'],
    ['that is empty', () => ['--key-file', keyFile('empty', '')], 'is empty'],
    ['of a command that fails', () => ['--key-command', 'echo key; exit 3'], 'it ended with 3'],
    ['of no source', () => [], 'expected --key-file or --key-command'],
  ])('a key %s is refused', async (_what, words, text) => {
    const refused = await vm.run('--encrypt', ...words());
    expect(refused).toMatchObject({ code: 2, error: { code: 'E_KEY' } });
    expect(refused.error.message).toContain(text);
    expect(await vm.at.jobs()).toEqual([]);
  });

  test('are not followed by one in clear text, or by another key, unless that is said', async () => {
    const first = await vm.run();
    const plain = await vm.at.bridge(vm.words('--no-encrypt').filter((word) => word !== '--no-encrypt'));
    expect(plain).toMatchObject({ code: 2, error: { code: 'E_KEY' } });
    expect(plain.error.message).toContain(`run ${first.made.run} is encrypted: give --encrypt`);
    const other = ['--encrypt', '--key-file', keyFile('other', OTHER_KEY)];
    const mistaken = await vm.run(...other);
    expect(mistaken).toMatchObject({ code: 2, error: { code: 'E_KEY' } });
    expect(mistaken.error.message).toContain('another key begins with full copies, by --new-key');
    expect(await vm.run('--full', ...other)).toMatchObject({ code: 2, error: { code: 'E_KEY' } });
    const dry = await vm.run('--dry-run', '--encrypt', ...vm.key);
    expect(dry.json).toMatchObject({ disks: [{ kind: 'incremental', isEncrypted: true }, { kind: 'incremental' }] });

    const said = await vm.run('--no-encrypt');
    expect(said.made.disks.map(({ kind, why, file }) => [kind, why, file.encryption])).toEqual(
      disks.map(() => [
        'full',
        `no increment of run ${first.made.run}: run ${first.made.run} is encrypted, and this one is not`,
        undefined,
      ]),
    );
    expect((await vm.run('--incremental')).error.message).toContain('is not encrypted, and this one is');
    const rotated = await vm.run('--new-key', ...other);
    expect(rotated.error.message).toBe('none');
    expect(rotated.made.disks.map(({ why }) => why)).toEqual(disks.map(() => '--new-key was given'));
    const next = await vm.run('--incremental', ...other);
    expect(next.error.message).toBe('none');
    await expect(vm.differences(first.made.run)).resolves.toEqual([]);
    vm.keyFile = vm.path('other');
    for (const { made } of [said, rotated, next]) expect(await vm.differences(made.run)).toEqual([]);
  });

  test('of an earlier key are no base, and are not passed over in silence', async () => {
    await vm.run();
    vm.keyFile = keyFile('other', OTHER_KEY);
    const { made } = await vm.run('--encrypt', '--new-key', ...vm.key);
    for (const { id, checkpoint } of made.disks) {
      await vm.at.vm.control.execute('block-dirty-bitmap-remove', { node: `node-${id}`, name: checkpoint });
    }
    const refused = await vm.run();
    expect(refused).toMatchObject({ code: 2, error: { code: 'E_KEY' } });
    expect(refused.error.message).toContain('a new chain begins with --full');
    expect((await vm.run('--encrypt', '--full', ...vm.key)).error.message).toBe('none');
    await expect(vm.run('--encrypt', '--new-key', '--incremental', ...vm.key)).resolves.toMatchObject({ code: 2 });
  });

  test.each([
    { command: 'object-add', when: 'after' },
    { command: 'transaction', when: 'after' },
  ] as const)('whose tool is killed $when $command are put right without their key', async (step) => {
    const { made } = await vm.run();
    await vm.at.killToolAt(vm.words(), step);
    expect((await vm.at.bridge(['recover'])).code).toBe(0);
    expect(await vm.at.ourObjects()).toEqual([]);
    expect(await vm.at.ourNodes()).toEqual([]);
    expect(leaks(vm.at.state(), KEY)).toEqual([]);
    await vm.write('data0', 3, 1024, 64);
    const next = await vm.run('--incremental');
    expect(next.made.disks.map(({ base }) => base?.run)).toEqual([made.run, made.run]);
    await expectAllGood(vm);
  });

  test('are booted with their key, firmware and all', async () => {
    const flash = (unit: number, file: string): string[] => [
      '-drive',
      `if=pflash,unit=${unit},format=raw,file=${file}`,
    ];
    writeFileSync(vm.path('vars.fd'), Buffer.alloc(65_536, CLEAR));
    await vm.at.restart(disks, [...flash(0, `${vm.path('halt.bin')},readonly=on`), ...flash(1, vm.path('vars.fd'))]);
    await vm.run();
    const { made } = await vm.run();
    expect(made.saved.map(({ name }) => name)).toContainEqual(expect.stringMatching(/vars\.fd\.luks$/));
    expect(leaks(vm.repository, CLEAR)).toEqual([]);
    const boot = async (...words: string[]) =>
      await vm.backup('verify', made.run, '--boot', '--accel', 'tcg', '--boot-timeout', '2', ...words);
    expect(await boot()).toMatchObject({ code: 2, error: { code: 'E_KEY' } });
    const booted = await boot(...vm.key);
    expect(booted.error.message).toBe('none');
    // Its guest halts at once.
    expect(booted.json).toMatchObject({
      runs: [{ problems: [], unchecked: [], boot: { problems: ['no agent answered within 2 s'], notes: [] } }],
    });
  });

  test('of a VM that is shut off are increments, and are put back in place', async () => {
    await vm.run();
    await vm.write('data0', 3, 1024, 64);
    const second = await vm.run();
    const then = vm.state();
    await vm.write('data0', 4, 2048, 64);
    await vm.at.vm.quit();
    const off = await vm.run('--compress', 'zstd');
    expect(off.error.message).toBe('none');
    expect(off.made.disks.map(({ kind }) => kind)).toEqual(['full', 'incremental']);
    expect(await vm.differences(off.made.run)).toEqual([]);
    const back = async (...words: string[]) =>
      await vm.at.bridge([
        'backup',
        'restore',
        second.made.run,
        '--in-place',
        '--yes',
        '--from',
        vm.repository,
        ...words,
      ]);
    expect(await back()).toMatchObject({ code: 2, error: { code: 'E_KEY' } });
    const restored = await back(...vm.key);
    expect(restored.error.message).toBe('none');
    vm.became(then);
    const after = await vm.run();
    expect(after.made.disks[1]).toMatchObject({ kind: 'incremental' });
    expect(await vm.differences(after.made.run)).toEqual([]);
  });
});
