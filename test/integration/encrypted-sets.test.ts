// Sets of a LUKS disk with the VM shut off: nobody has its secret then. They can be looked at and deleted; what needs the
// secret is refused before anything is changed.
import { statSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { holdsData } from '../../src/host/images/overlay-data.js';
import { CutHarness, isOverlay, type Run } from '../support/cut-harness.js';
import { luksDisk, luksWords } from '../support/luks.js';
import { requires } from '../support/requires.js';

let at: CutHarness;
beforeEach(async () => {
  at = await CutHarness.start([], luksDisk);
}, 60_000);
afterEach(async () => {
  await at[Symbol.asyncDispose]();
});

const snapshot = async (...words: string[]): Promise<Run> => await at.bridge(['snapshot', ...words]);
const files = (): unknown =>
  at.images().map((name) => {
    const { ino, size, mtimeMs } = statSync(at.folder.path(`images/${name}`));
    return { name, ino, size, mtimeMs };
  });

/** s1 and s2, with a write after each; gives the overlay that the VM is on, which is shut off. */
async function cutTwice(): Promise<string> {
  for (const [index, set] of ['s1', 's2'].entries()) {
    expect((await at.create(set)).error.message).toBe('none');
    await at.vm.write('luks0', index + 1, 64 * index, 64);
  }
  await at.vm.quit();
  const active = at.images().find((name) => isOverlay(name, 's2')) ?? 'none';
  return at.folder.path(`images/${active}`);
}

requires('qemu-system-x86_64', 'qemu-img')('sets of an encrypted disk', () => {
  test('are told of, merged and deleted by what can be known of them', { timeout: 120_000 }, async () => {
    const active = await cutTwice();
    const before = files();
    for (const set of ['s1', 's2'])
      expect(await snapshot('show', set)).toMatchObject({ code: 0, json: { state: 'cut' } });
    for (const [words, code, why] of [
      [['revert', 's2', '--yes'], 'E_ENCRYPTED', /only QEMU, with its secret, can make an empty overlay/],
      [['prune', '--keep', '1', '--yes'], 'E_ENCRYPTED', /prune while the VM runs/],
      [['commit', 's2', '--offline'], 'E_NOT_ACTIVE', /commit while the VM runs/],
    ] as const) {
      const refused = await snapshot(...words);
      expect(refused).toMatchObject({ code: 2, error: { code } });
      expect(refused.error.message).toMatch(why);
      expect(files()).toEqual(before);
    }
    expect((await at.bridge(['recover'])).json['findings']).toEqual([]);
    await at.start([], luksWords(active));
    expect((await snapshot('prune', '--keep', '1', '--yes')).error.message).toBe('none');
    await at.vm.quit();
    // Asked, since it holds what the VM wrote.
    expect(await snapshot('delete', 's2')).toMatchObject({ code: 4 });
    expect((await snapshot('delete', 's2', '--yes')).error.message).toBe('none');
    expect(at.images()).toEqual(['luks0.qcow2']);
  });

  test('have overlays of which is known, without the secret, whether they hold data', { timeout: 60_000 }, async () => {
    expect((await at.create('s1')).error.message).toBe('none');
    const overlay = at.overlay('luks0');
    await at.vm.quit();
    expect(await holdsData(overlay)).toBe(false);
    await at.start([], luksWords(overlay));
    await at.vm.write('luks0', 1, 0, 64);
    await at.vm.quit();
    expect(await holdsData(overlay)).toBe(true);
  });
});
