// Sets of an encrypted disk: only the VM has the key. What needs it is refused before anything is changed, with the way
// that does work; what does not need it works with the VM shut off as for any other.
import { execa } from 'execa';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Finding } from '../../src/host/recover/finding.js';
import type { Manifest } from '../../src/host/sets/manifest.js';
import { CutHarness, type Run } from '../support/cut-harness.js';
import { LUKS_OBJECT, luksDisk, luksHolds, luksWords } from '../support/luks.js';
import { requires } from '../support/requires.js';

// Keys are stretched.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });
let at: CutHarness;
beforeEach(async () => {
  at = await CutHarness.start([], luksDisk);
  await at.vm.write('luks0', 1, 0, 64);
  await create('s1');
  await at.vm.write('luks0', 2, 0, 64);
});
afterEach(async () => {
  await at[Symbol.asyncDispose]();
});

const create = async (set: string): Promise<Manifest> => {
  const run = await at.create(set, '--require', 'crash');
  expect(run.error.message).toBe('none');
  return run.manifest;
};
const tool = async (...words: string[]): Promise<Run> => await at.bridge(['snapshot', ...words]);
const base = (): string => at.folder.path('images/luks0.qcow2');
const header = async (file: string): Promise<Record<string, unknown>> =>
  JSON.parse((await execa('qemu-img', ['info', '--output=json', '-U', '-f', 'qcow2', file])).stdout) as Record<
    string,
    unknown
  >;
/** All of what lies in images and state, but for locks. */
const everything = (): string => {
  const hash = createHash('sha256');
  for (const name of at.images()) hash.update(name).update(readFileSync(at.folder.path(`images/${name}`)));
  hash.update(readFileSync(at.state('s1', 'manifest.json')));
  return hash.digest('hex');
};

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('a set of an encrypted disk, the VM shut off', () => {
  test.each([
    ['revert', ['revert', 's1', '--yes'], 'delete the set, and start the VM from'],
    ['offline commit', ['commit', 's1', '--offline', '--yes'], 'commit while the VM runs, started from'],
    ['copy', ['copy', 's1', '/nonexistent/copy'], 'nothing was copied'],
  ])('is refused a %s before anything is changed, with the way that works', async (_what, words, way) => {
    await at.vm.quit();
    const before = everything();
    const run = await tool(...words);
    expect(run.code).toBe(2);
    expect(run.error.message).toContain('is encrypted');
    expect(run.error.message).toContain(way);
    expect(everything()).toBe(before);
  });

  test('is refused a prune before anything is changed', async () => {
    await create('s2');
    await at.vm.quit();
    const before = everything();
    const run = await tool('prune', '--keep', '1', '--yes');
    expect(run).toMatchObject({ code: 2, error: { code: 'E_ENCRYPTED' } });
    expect(run.error.message).toContain('prune while the VM runs');
    expect(everything()).toBe(before);
  });

  test('is listed and shown, recover has nothing to do, and start-args give its secret', async () => {
    await at.vm.quit();
    expect(await tool('list')).toMatchObject({ code: 0 });
    expect(await tool('show', 's1')).toMatchObject({ code: 0, manifest: { state: 'cut', level: 'filesystem' } });
    const recovered = await at.bridge(['recover']);
    expect(recovered.code).toBe(0);
    expect(recovered.json['findings'] as Finding[]).toEqual([]);
    expect((await tool('start-args')).stderr).toContain('-object secret,id=s0,');
    const words = (await execa('sh', ['-c', `printf '%s\\n' ${await at.text(['snapshot', 'start-args'])}`])).stdout;
    const device = ['-device', 'virtio-blk-pci,id=luks0,drive=node-luks0,serial=luks0'];
    await at.start([], ['-object', LUKS_OBJECT, ...words.split('\n'), ...device]);
    await at.vm.write('luks0', 3, 0, 64);
    expect((await tool('commit', 's1')).error.message).toBe('none');
    await at.vm.quit();
    expect(await luksHolds(base(), 3)).toBe(true);
    // And from the base after it.
    const after = (await execa('sh', ['-c', `printf '%s\\n' ${await at.text(['snapshot', 'start-args'])}`])).stdout;
    await at.start([], ['-object', LUKS_OBJECT, ...after.split('\n'), ...device]);
  });

  test('goes back to its cut when it is deleted, as the refused revert says', async () => {
    await at.vm.quit();
    expect((await tool('delete', 's1', '--yes')).error.message).toBe('none');
    expect(await luksHolds(base(), 1)).toBe(true);
  });
});

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('an old set of an encrypted disk', () => {
  test('is merged out of the way by the VM: the header keeps the secret, and the VM starts', async () => {
    const overlay = (await create('s2')).disks[0]?.overlay.file ?? '';
    await at.vm.write('luks0', 3, 0, 64);
    expect((await tool('prune', '--keep', '1', '--yes')).error.message).toBe('none');
    await at.vm.quit();
    expect(await header(overlay)).toMatchObject({ encrypted: true });
    expect(JSON.stringify(await header(overlay))).toContain('s0');
    expect(await luksHolds(overlay, 3)).toBe(true);
    expect(await luksHolds(base(), 2)).toBe(true);
    await at.start([], luksWords(overlay));
    expect((await tool('commit', 's2')).error.message).toBe('none');
    await at.vm.quit();
    expect(await luksHolds(base(), 3)).toBe(true);
  });
});
