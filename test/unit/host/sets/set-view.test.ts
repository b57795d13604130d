import { execa } from 'execa';
import { writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import type { Manifest } from '../../../../src/host/sets/manifest.js';
import { viewSet, type DiskView } from '../../../../src/host/sets/set-view.js';
import { manifest } from '../../../support/manifests.js';
import { requires } from '../../../support/requires.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

/** Of a VM that is shut off: a set of two disks; the overlay of the first was written to, that of the second is gone. */
async function halfDone(folder: Scratch, state: Manifest['state']): Promise<readonly DiskView[]> {
  const set = manifest('s1');
  const disks = ['vd0', 'vd1'].flatMap((id) => {
    const [base, overlay] = [folder.path(id), folder.path(`${id}.s1`)];
    writeFileSync(base, id);
    return set.disks.map((disk) => ({
      ...disk,
      id,
      base: { ...disk.base, file: base },
      overlay: { ...disk.overlay, file: overlay },
    }));
  });
  const written = folder.path('vd0.s1');
  await execa('qemu-img', ['create', '-q', '-f', 'qcow2', written, '1M']);
  await execa('qemu-io', ['-f', 'qcow2', '-c', 'write 0 64k', written]);
  return (await viewSet({ ...set, state, disks }, { monitors: [], isRunning: false, isBusy: false })).disks;
}

requires('qemu-img', 'qemu-io')('a set whose maker was killed between two of its disks', () => {
  test('names the bases if it is deleted: an overlay may be gone already', async () => {
    using folder = scratch();
    const disks = await halfDone(folder, 'deleting');
    expect(disks.map(({ newest }) => newest?.file)).toEqual([folder.path('vd0'), folder.path('vd1')]);
  });

  test('names no image if it is reverted: its disks are of two moments', async () => {
    using folder = scratch();
    const disks = await halfDone(folder, 'reverting');
    expect(disks.map(({ newest }) => newest)).toEqual([undefined, undefined]);
    for (const { notes } of disks) expect(notes.join()).toContain('revert it again');
  });
});
