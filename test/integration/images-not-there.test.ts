// Images that cannot be seen for a while, as at boot before their filesystem is mounted: nothing may be taken for gone that
// is only elsewhere, and nothing be forgotten that a VM wrote.
import {
  existsSync,
  mkdirSync as mkdir,
  readFileSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Manifest } from '../../src/host/sets/manifest.js';
import { holdsPattern, imagePath, type BareDisk } from '../support/bare-qemu.js';
import { CutHarness } from '../support/cut-harness.js';
import { requires } from '../support/requires.js';

const disk: BareDisk = { name: 'root0', format: 'qcow2' };
let at: CutHarness;
let overlay: string;
beforeEach(async () => {
  at = await CutHarness.start([disk]);
  await at.vm.write('root0', 1, 0, 64);
  expect((await at.create('s1')).error.message).toBe('none');
  await at.vm.write('root0', 2, 0, 64);
  await at.vm.flush('root0');
  overlay = at.overlay('root0');
  await at.vm.kill();
});
afterEach(async () => {
  await at[Symbol.asyncDispose]();
});

const images = (): string => at.folder.path('images');
const away = (): void => {
  renameSync(images(), `${images()}.away`);
};
const back = (): void => {
  // The mount point, if there is one, is covered.
  rmSync(images(), { recursive: true, force: true });
  renameSync(`${images()}.away`, images());
};
const link = (): string => at.state('.images', 'root0');
const file = (): string => at.state('s1', 'manifest.json');
const manifest = (): Manifest => JSON.parse(readFileSync(file(), 'utf8')) as Manifest;
const change = (what: Partial<Manifest>): void => {
  writeFileSync(file(), JSON.stringify({ ...manifest(), ...what }));
};
const recover = async () => await at.bridge(['recover']);

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('a set whose images are not mounted', () => {
  describe.each(['its folder is gone', 'its folder is an empty mount point'])('(%s)', (how) => {
    const unmounted = (): void => {
      away();
      if (how.includes('mount point')) mkdir(images());
    };

    test('keeps its level, is told of by recover, and has no link until they are there again', async () => {
      expect(readlinkSync(link())).toBe(overlay);
      unmounted();
      const told = await recover();
      expect(told.code).toBe(8);
      expect(told.json['findings']).toMatchObject([{ kind: 'image-missing', status: 'yours', set: 's1' }]);
      expect(manifest()).toMatchObject({ state: 'cut', level: 'filesystem' });
      expect(existsSync(link())).toBe(false);
      expect(readdirSync(at.state('.images'))).toEqual([]);
      expect(await at.bridge(['snapshot', 'start-args'])).toMatchObject({
        code: 2,
        error: { code: 'E_NEWEST_UNKNOWN' },
      });
      back();
      expect(await recover()).toMatchObject({ code: 0, json: { findings: [] } });
      expect(readlinkSync(link())).toBe(overlay);
      const copy = at.folder.path('copy');
      expect((await at.bridge(['snapshot', 'copy', 's1', copy])).error.message).toBe('none');
      expect(await holdsPattern(join(copy, 'root0.qcow2'), 'qcow2', 1, 0, 64)).toBe(true);
    });

    test('is not deleted without a question', async () => {
      unmounted();
      const asked = await at.bridge(['snapshot', 'delete', 's1']);
      expect(asked).toMatchObject({ code: 4, error: { code: 'E_DECLINED' } });
      expect(asked.error.message).toContain(`${overlay} is not there`);
      expect(manifest().state).toBe('cut');
    });

    test('that was cut when its tool was killed is not forgotten: it is found to be cut later', async () => {
      change({ state: 'cutting', level: 'none' });
      unmounted();
      expect(await recover()).toMatchObject({
        code: 8,
        json: { findings: [{ kind: 'image-missing', status: 'yours' }] },
      });
      expect(manifest().state).toBe('cutting');
      back();
      expect((await recover()).code).toBe(0);
      expect(manifest()).toMatchObject({ state: 'cut', level: 'crash' });
      expect(readlinkSync(link())).toBe(overlay);
    });

    test('and is deleted in part is not forgotten while the rest of it cannot be removed', async () => {
      change({ state: 'deleting' });
      unmounted();
      expect((await recover()).code).toBe(8);
      expect(existsSync(file())).toBe(true);
      back();
      expect((await recover()).code).toBe(0);
      expect(existsSync(overlay)).toBe(false);
    });

    test('and is reverted in part is not taken for reverted', async () => {
      change({ state: 'reverting' });
      unmounted();
      expect((await recover()).code).toBe(8);
      expect(manifest().state).toBe('reverting');
      back();
    });
  });

  test('is forgotten if nothing was cut, and its overlays were removed from their folder', async () => {
    change({ state: 'cutting', level: 'none' });
    rmSync(overlay);
    expect((await recover()).code).toBe(0);
    expect(existsSync(file())).toBe(false);
    expect(existsSync(imagePath(at.folder, disk))).toBe(true);
  });

  test('asks, too, if its overlay was removed from its folder', async () => {
    rmSync(overlay);
    const asked = await at.bridge(['snapshot', 'delete', 's1']);
    expect(asked.error.message).toContain(`${overlay} was removed, with what the VM wrote to it`);
    expect((await at.bridge(['snapshot', 'delete', 's1', '--yes'])).code).toBe(0);
  });

  test('committed by half with the VM shut off says that it goes on with --offline', async () => {
    const [first] = manifest().disks;
    if (first === undefined) throw new Error('s1 has no disk');
    change({ state: 'committing', disks: [{ ...first, merge: 'begun' }] });
    const told = await recover();
    const [finding] = told.json['findings'] as { commands: string[]; did: string }[];
    expect(finding?.did).toContain('with --offline');
    expect(finding?.commands.some((line) => line.endsWith(' --offline'))).toBe(true);
    expect((await at.bridge(['snapshot', 'commit', 's1', '--offline'])).error.message).toBe('none');
    expect(await holdsPattern(imagePath(at.folder, disk), 'qcow2', 2, 0, 64)).toBe(true);
  });
});
