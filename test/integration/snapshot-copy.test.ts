// Copies of cuts of a real QEMU: what lies in the folder is whole, says what it is, and is read by qemu-img alone; while
// it is made nobody can change what is read, and one that was killed leaves nothing that could be taken for a copy.
import { execa } from 'execa';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  utimesSync,
  writeFileSync,
  writeSync,
  closeSync,
} from 'node:fs';
import { basename } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { CopyRecord } from '../../src/host/copy/copy-record.js';
import { deadDraftOf } from '../../src/host/copy/copy-draft.js';
import { fileStateOf } from '../../src/host/images/file-state.js';
import type { Manifest } from '../../src/host/sets/manifest.js';
import { ManifestStore } from '../../src/host/sets/manifest-store.js';
import { holdsPattern, imagePath } from '../support/bare-qemu.js';
import { CutHarness, rootAndData, type Run } from '../support/cut-harness.js';
import { requires } from '../support/requires.js';

const disks = rootAndData;
let at: CutHarness;
beforeEach(async () => {
  at = await CutHarness.start(disks);
  mkdirSync(at.folder.path('backup'));
});
afterEach(async () => {
  await at[Symbol.asyncDispose]();
});

const target = (name = 'nightly'): string => at.folder.path(`backup/${name}`);
const copy = async (...words: string[]): Promise<Run> =>
  await at.bridge(['snapshot', 'copy', 's1', target(), ...words]);
const backups = (): string[] => readdirSync(at.folder.path('backup')).sort();
const record = (name = 'nightly'): CopyRecord =>
  JSON.parse(readFileSync(`${target(name)}/manifest.json`, 'utf8')) as CopyRecord;
const manifestFile = (set: string): string => at.manifestFile(set);
const change = (set: string, to: (manifest: Manifest) => Manifest): void => {
  writeFileSync(manifestFile(set), JSON.stringify(to(JSON.parse(readFileSync(manifestFile(set), 'utf8')) as Manifest)));
};

/** 1 at the cut, 2 over it since; `kilobytes` of it, on both disks. */
async function cut(kilobytes = 64): Promise<void> {
  for (const { name } of disks) await at.vm.write(name, 1, 0, kilobytes);
  expect((await at.create('s1')).error.message).toBe('none');
  for (const { name } of disks) {
    await at.vm.write(name, 2, 0, kilobytes);
    await at.vm.flush(name);
  }
}

async function expectCopied(run: Run): Promise<void> {
  expect(run.error.message).toBe('none');
  expect(run.code).toBe(0);
  for (const { disks: copied } of [record()]) {
    expect(copied).toHaveLength(2);
    for (const { image } of copied) {
      const format = image.endsWith('.raw') ? 'raw' : 'qcow2';
      expect(await holdsPattern(`${target()}/${image}`, format, 1, 0, 64)).toBe(true);
      expect((await execa('qemu-img', ['info', '-f', format, `${target()}/${image}`])).stdout).toContain('16 MiB');
    }
  }
  expect(backups()).toEqual(['nightly']);
  expect(existsSync(at.state('s1/copy.json'))).toBe(false);
}

/** The tool, copying a few megabytes at one per second; returns when qemu-img is at it. Within: a child is a promise. */
async function slowCopy(...words: string[]) {
  await cut(6144);
  const child = at.spawn(['snapshot', 'copy', 's1', target(), '--speed', '1', ...words]);
  const isAtIt = (): boolean =>
    backups().some((draft) => readdirSync(at.folder.path(`backup/${draft}`)).some((name) => name.endsWith('.qcow2')));
  await expect.poll(isAtIt, { timeout: 20_000 }).toBe(true);
  return { child };
}

function send(child: { readonly pid?: number | undefined }, name: NodeJS.Signals): void {
  if (child.pid === undefined) throw new Error('the tool did not start');
  process.kill(child.pid, name);
}

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('snapshot copy', () => {
  test('copies the cut of a running VM, and says in its manifest what it is worth and how to restore it', async () => {
    await cut();
    await expectCopied(await copy());
    const { level, evidence, verified, set, disks: copied } = record();
    expect({ level, verified, set }).toEqual({ level: 'filesystem', verified: true, set: 's1' });
    expect(evidence.length).toBeGreaterThan(0);
    expect(readdirSync(target()).sort()).toEqual(['data0.qcow2', 'manifest.json', 'root0.qcow2']);
    for (const { files, image, restore } of copied) {
      const bytes = readFileSync(`${target()}/${image}`);
      expect(files).toEqual([
        { file: image, format: 'qcow2', size: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') },
      ]);
      await execa('sh', ['-c', restore]);
    }
    expect(await holdsPattern(at.folder.path('images/root0.raw.restored'), 'raw', 1, 0, 64)).toBe(true);
    expect(await holdsPattern(at.folder.path('images/data0.qcow2.restored'), 'qcow2', 1, 0, 64)).toBe(true);
    // The guest went on, and the set is free again.
    await at.vm.write('root0', 3, 64, 64);
    expect((await at.bridge(['snapshot', 'commit', 's1'])).error.message).toBe('none');
  });

  test('copies with the VM shut off', async () => {
    await cut();
    await at.vm.quit();
    await expectCopied(await copy());
  });

  test('copies the chain as it is, each layer naming the next by a name that survives a move', async () => {
    await cut();
    for (const { name } of disks) await at.vm.write(name, 4, 128, 64);
    expect((await at.create('s2')).code).toBe(0);
    for (const { name } of disks) await at.vm.write(name, 5, 0, 256);
    const run = await at.bridge(['snapshot', 'copy', 's2', target(), '--no-flatten']);
    expect(run.error.message).toBe('none');
    await at.vm.quit();
    renameSync(at.folder.path('images'), at.folder.path('gone'));
    renameSync(target(), target('moved'));
    for (const { name } of disks) {
      const top = `${target('moved')}/${name}.qcow2`;
      expect(await holdsPattern(top, 'qcow2', 2, 0, 64)).toBe(true);
      expect(await holdsPattern(top, 'qcow2', 4, 128, 64)).toBe(true);
      // The layer below holds what was older than s1.
      expect(await holdsPattern(`${target('moved')}/${name}.below1.qcow2`, 'qcow2', 1, 0, 64)).toBe(true);
      const own = await execa('qemu-img', ['map', '--output=json', top]);
      const inTop = (JSON.parse(own.stdout) as { depth: number; data: boolean }[]).filter(({ data }) => data);
      expect(inTop.every(({ depth }) => depth === 0)).toBe(true);
    }
    expect(record('moved').disks[0]?.files.map(({ file, backing }) => [file, backing])).toEqual([
      ['root0.qcow2', 'root0.below1.qcow2'],
      ['root0.below1.qcow2', undefined],
    ]);
  });

  test('flattens a chain, also one that lies in an external data file', async () => {
    const data = at.folder.path('images/data.bin');
    const file = at.folder.path('images/external.qcow2');
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', `data_file=${data}`, file, '16M']);
    await at.restart([{ name: 'data0', format: 'qcow2', file }]);
    await at.vm.write('data0', 1, 0, 64);
    for (const set of ['s0', 's1']) expect((await at.create(set)).error.message).toBe('none');
    await at.vm.write('data0', 2, 0, 64);
    expect((await copy()).error.message).toBe('none');
    await at.vm.quit();
    renameSync(at.folder.path('images'), at.folder.path('gone'));
    expect(await holdsPattern(`${target()}/data0.qcow2`, 'qcow2', 1, 0, 64)).toBe(true);
  });

  test('makes raw images, and compressed ones', async () => {
    await cut();
    await expectCopied(await copy('--format', 'raw', '--no-verify'));
    expect(record().verified).toBe(false);
    const small = await at.bridge(['snapshot', 'copy', 's1', target('small'), '--compress']);
    expect(small.code).toBe(0);
    expect(await holdsPattern(`${target('small')}/data0.qcow2`, 'qcow2', 1, 0, 64)).toBe(true);
    expect(await copy('--format', 'raw', '--compress')).toMatchObject({ code: 2, error: { code: 'E_FORMAT' } });
  });

  test('pins the set: nobody commits, reverts or deletes it meanwhile, and QEMU merges nothing into what is read', async () => {
    const { child } = await slowCopy();
    for (const words of [['commit'], ['revert', '--yes'], ['delete', '--yes'], ['copy', target('two')]]) {
      const [verb = '', ...rest] = words;
      const refused = await at.bridge(['snapshot', verb, 's1', ...rest]);
      expect(refused.code).toBe(2);
      expect(refused.error.message).toMatch(/being worked on by process \d+ \(copy, since /);
    }
    const [root] = (await at.vm.control.execute('query-block')) as { inserted: { 'node-name': string } }[];
    const merge = at.vm.control.execute('block-commit', { 'job-id': 'own', device: root?.inserted['node-name'] });
    await expect(merge).rejects.toThrow(/lock/);
    const { exitCode } = await child;
    expect(exitCode).toBe(0);
    await expectCopied(await at.bridge(['snapshot', 'show', 's1']));
  });

  test('killed, it leaves a draft alone, which the next copy removes', async () => {
    const { child } = await slowCopy();
    send(child, 'SIGKILL');
    await child;
    const [draft = ''] = backups();
    expect(backups()).toEqual([draft]);
    expect(draft).toMatch(/^\.draft-nightly\./);
    const store = new ManifestStore(at.folder.path('state'), basename(at.state()));
    // qemu-img writes on until it ends: the draft is not touched before.
    expect(await deadDraftOf(store, 's1')).toBeUndefined();
    const told = (await at.bridge(['recover'])).json['findings'];
    expect(told).toMatchObject([{ kind: 'file-left', status: 'busy', set: 's1' }]);
    expect(JSON.stringify(told)).toMatch(/qemu-img \(process \d+\) still writes to it: .*\.draft-nightly/);
    expect(backups()).toEqual([draft]);
    await expect.poll(() => deadDraftOf(store, 's1'), { timeout: 30_000 }).toBe(at.folder.path(`backup/${draft}`));
    await expectCopied(await copy());
  });

  test.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)('%s ends it, and leaves nothing', async (name) => {
    const { child } = await slowCopy();
    send(child, name);
    const { exitCode, stderr } = await child;
    expect(stderr).toContain(`interrupted by ${name}: the copy was given up, and nothing of it is left`);
    expect(exitCode).toBe(4);
    expect(backups()).toEqual([]);
    expect(readdirSync(at.state('s1'))).toEqual(['manifest.json']);
    await at.leftQemuImgEnded();
  });

  test('ends at its time limit, tells of its progress, and leaves nothing', async () => {
    const { child } = await slowCopy('--timeout', '4');
    const { exitCode, stderr } = await child;
    expect(exitCode).toBe(5);
    expect(stderr).toMatch(/copying disk root0 \(1 of 2\): \d+ %/);
    expect(stderr).toContain('no end within 4000 ms');
    expect(backups()).toEqual([]);
  });

  test('does not touch a target that is there', async () => {
    await cut();
    mkdirSync(target());
    const refused = await copy();
    expect(refused).toMatchObject({ code: 2, error: { code: 'E_NAME_TAKEN' } });
    expect(readdirSync(target())).toEqual([]);
    const nowhere = await at.bridge(['snapshot', 'copy', 's1', at.folder.path('none/nightly')]);
    expect(nowhere).toMatchObject({ code: 2, error: { code: 'E_TARGET' } });
  });

  requires('root')('beside a small filesystem', () => {
    test('says that there is no space before it begins', async () => {
      await cut(4096);
      await execa('mount', ['-t', 'tmpfs', '-o', 'size=2M', 'fsb-copy', at.folder.path('backup')]);
      try {
        const refused = await copy();
        expect(refused).toMatchObject({ code: 5, error: { code: 'E_NO_SPACE' } });
        expect(refused.error.message).toContain('2 MiB free');
        expect(backups()).toEqual([]);
      } finally {
        await execa('umount', [at.folder.path('backup')]);
      }
    });
  });

  describe('refuses', () => {
    test('a set that is committed', async () => {
      await cut();
      expect((await at.bridge(['snapshot', 'commit', 's1'])).code).toBe(0);
      expect(await copy()).toMatchObject({ code: 2, error: { code: 'E_STATE_OF_SET' } });
    });

    test('a base that a VM writes to again, and one to which it did', async () => {
      await cut();
      await at.restart(disks.map((disk) => ({ ...disk, file: imagePath(at.folder, disk) })));
      expect(await copy()).toMatchObject({ code: 2, error: { code: 'E_IN_USE' } });
      await at.vm.write('root0', 9, 0, 64);
      await at.vm.quit();
      expect(await copy()).toMatchObject({ code: 2, error: { code: 'E_BASE_LOST' } });
      expect(backups()).toEqual([]);
    });

    test('a base that is not what it was right after the cut', async () => {
      await cut();
      await at.vm.quit();
      const base = at.folder.path('images/root0.raw');
      const asCut = await fileStateOf(base);
      change('s1', (manifest) => ({
        ...manifest,
        disks: manifest.disks.map((disk) =>
          disk.base.file === base ? { ...disk, base: { ...disk.base, asCut } } : disk,
        ),
      }));
      await expectCopied(await copy());
      // As old as before the cut, for all that its overlay tells.
      utimesSync(base, 1, 1);
      const refused = await at.bridge(['snapshot', 'copy', 's1', target('again')]);
      expect(refused).toMatchObject({ code: 2, error: { code: 'E_BASE_LOST' } });
    });

    test('a base that somebody changes while it is copied, who knows of no locks', async () => {
      const { child } = await slowCopy();
      const fd = openSync(at.folder.path('images/root0.raw'), 'r+');
      writeSync(fd, 'x', 8 * 1024 * 1024);
      closeSync(fd);
      const { exitCode, stderr } = await child;
      expect(stderr).toMatch(/was changed while it was copied|is not what .* holds/);
      expect(exitCode).toBe(5);
      expect(backups()).toEqual([]);
    });

    test('a disk that is encrypted', async () => {
      await cut();
      change('s1', (manifest) => ({
        ...manifest,
        disks: manifest.disks.map((disk) => ({ ...disk, encryption: 'luks' })),
      }));
      expect(await copy()).toMatchObject({ code: 2, error: { code: 'E_ENCRYPTED' } });
    });
  });
});
