// LUKS files that we make, read back by QEMU.
import { open, readFile } from 'node:fs/promises';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Deadline } from '../../src/deadline.js';
import { decrypt } from '../../src/host/boot/saved-file.js';
import { writeLuks } from '../../src/host/images/luks-file.js';
import { LuksKey } from '../../src/host/images/luks-key.js';
import { runQemuImg } from '../../src/host/images/qemu-img-task.js';
import { saveState } from '../../src/host/sets/saved-files.js';
import { requires } from '../support/requires.js';
import { scratch, type Scratch } from '../support/scratch.js';

let folder: Scratch;
beforeEach(() => {
  folder = scratch();
});
afterEach(() => {
  folder[Symbol.dispose]();
});
const key = new LuksKey(Buffer.from('k'.repeat(44)), 'a test');
const passphrase = new LuksKey(Buffer.from('sésame ouvre\n'), 'a test');
const { signal } = new AbortController();
const limits = (its: LuksKey) => ({ deadline: new Deadline(60_000), signal, key: its });

requires('qemu-img')('a LUKS file', () => {
  test.each([
    ['nothing', 0, key],
    ['a byte', 1, key],
    ['more than is written at once', 1_100_000, key],
    ['something, by a passphrase', 70_000, passphrase],
  ])('that holds %s is what QEMU reads', async (_what, size, its) => {
    const bytes = randomBytes(size);
    const file = folder.path('f.luks');
    const handle = await open(file, 'wx+');
    await writeLuks(handle, its, randomBytes(5_000_000).subarray(0, size === 1 ? 5_000_000 : 0));
    // Written anew: nothing of before is left.
    await writeLuks(handle, its, bytes);
    await handle.close();
    const image = { driver: 'luks', 'key-secret': 'key', file: { driver: 'file', filename: file } };
    await runQemuImg(['convert', '-O', 'raw', `json:${JSON.stringify(image)}`, folder.path('clear')], limits(its));
    const found = await readFile(folder.path('clear'));
    expect(found.subarray(0, size).equals(bytes)).toBe(true);
    expect(found.subarray(size).equals(Buffer.alloc(Math.ceil(size / 512) * 512 - size))).toBe(true);
    const other = runQemuImg(['map', `json:${JSON.stringify(image)}`], limits(its === key ? passphrase : key));
    await expect(other).rejects.toMatchObject({ code: 'E_KEY' });
  });

  test('keeps what a VM has beside its disks, and gives it back as it was', async () => {
    const state = Buffer.from('the state of a TPM');
    mkdirSync(folder.path('tpm'));
    writeFileSync(folder.path('tpm/permall'), state);
    const tpm = { name: 'tpm', what: 'its TPM', path: folder.path('tpm'), seenAt: folder.path('tpm') };
    mkdirSync(folder.path('run'));
    const { saved, leftOut } = await saveState(folder.path('run'), [tpm], key);
    expect(leftOut).toEqual([]);
    const cipher = 'aes-256-xts-plain64';
    expect(saved).toMatchObject([{ name: 'tpm/permall.luks', encryption: { format: 'luks', cipher, size: 18 } }]);
    const file = folder.path('run/tpm/permall.luks');
    expect(readFileSync(file).length).toBe(saved[0]?.size);
    expect(readFileSync(file).includes(state)).toBe(false);
    rmSync(folder.path('tpm'), { recursive: true });
    await decrypt(file, 18, { signal, key });
    expect(readFileSync(file)).toEqual(state);
    expect(readdirSync(folder.path('run/tpm'))).toEqual(['permall.luks']);
  });
});
