// Images that were copied away and put back under their names (a restore, a new disk): other files than they were, and still
// the set's own. And a VM that has its images under other names than the set.
import { execa } from 'execa';
import { existsSync, readdirSync, renameSync, rmSync, symlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { holdsPattern, imagePath, type BareDisk } from '../support/bare-qemu.js';
import { CutHarness } from '../support/cut-harness.js';
import { requires } from '../support/requires.js';

const disk: BareDisk = { name: 'root0', format: 'qcow2' };
let at: CutHarness;
beforeEach(async () => {
  at = await CutHarness.start([disk]);
});
afterEach(async () => {
  await at[Symbol.asyncDispose]();
});

async function cutAndWrite(set: string, pattern: number): Promise<string> {
  const { manifest, error } = await at.create(set);
  expect(error.message).toBe('none');
  await at.vm.write('root0', pattern, 0, 64);
  await at.vm.flush('root0');
  return manifest.disks[0]?.overlay.file ?? '';
}

async function putBack(): Promise<void> {
  const images = at.folder.path('images');
  await execa('cp', ['--archive', images, `${images}.copy`]);
  rmSync(images, { recursive: true });
  renameSync(`${images}.copy`, images);
}

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('images that were put back under their names', () => {
  test('are merged, removed and reverted to as before, with the VM shut off', async () => {
    const first = await cutAndWrite('s1', 1);
    const second = await cutAndWrite('s2', 2);
    await at.vm.quit();
    await putBack();
    expect(await at.bridge(['snapshot', 'commit', 's2', '--offline'])).toMatchObject({
      code: 0,
      json: { foreign: [] },
    });
    expect(existsSync(second)).toBe(false);
    expect(await holdsPattern(first, 'qcow2', 2, 0, 64)).toBe(true);
    expect((await at.bridge(['snapshot', 'revert', 's1', '--yes'])).error.message).toBe('none');
    expect((await at.bridge(['snapshot', 'commit', 's1', '--offline'])).error.message).toBe('none');
    expect(at.images()).toEqual([basename(imagePath(at.folder, disk))]);
  });

  test('are merged and removed by a running VM', async () => {
    const overlay = await cutAndWrite('s1', 1);
    await at.vm.quit();
    await putBack();
    await at.start([{ ...disk, file: overlay }]);
    expect((await at.bridge(['snapshot', 'commit', 's1'])).error.message).toBe('none');
    expect(existsSync(overlay)).toBe(false);
  });

  test('are not deleted without a question', async () => {
    const overlay = await cutAndWrite('s1', 1);
    await at.vm.quit();
    await putBack();
    const asked = await at.bridge(['snapshot', 'delete', 's1']);
    expect(asked).toMatchObject({ code: 4, error: { code: 'E_DECLINED' } });
    expect(existsSync(overlay)).toBe(true);
  });

  test.each(['linked folder', 'relative name'])('are pruned under a VM that has them by a %s', async (how) => {
    await cutAndWrite('s1', 1);
    const newest = await cutAndWrite('s2', 2);
    await at.vm.quit();
    symlinkSync(at.folder.path('images'), at.folder.path('linked'));
    const file = how === 'linked folder' ? at.folder.path(`linked/${basename(newest)}`) : `images/${basename(newest)}`;
    await at.start([{ ...disk, file }]);
    expect((await at.bridge(['snapshot', 'prune', '--keep', '1', '--yes'])).error.message).toBe('none');
    expect(
      readdirSync(at.folder.path('images')).filter((name) => name.includes('.s1-') && !name.includes('.s2-')),
    ).toEqual([]);
    await at.vm.quit();
    expect(await holdsPattern(newest, 'qcow2', 2, 0, 64)).toBe(true);
    expect((await at.bridge(['snapshot', 'show', 's2'])).json).toMatchObject({ level: 'filesystem' });
  });
});
