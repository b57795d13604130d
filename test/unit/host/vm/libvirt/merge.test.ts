// Which layer libvirt is asked to merge.
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { mergeByLibvirt } from '../../../../../src/host/vm/libvirt/merge.js';
import type { Virsh } from '../../../../../src/host/vm/libvirt/virsh.js';
import type { VmDisk } from '../../../../../src/qmp/block-graph.js';
import { scratch } from '../../../../support/scratch.js';

const options = {
  ...{ jobId: 'job', limitMs: 1000, speed: undefined, signal: new AbortController().signal },
  ...{ onProgress: () => undefined, beforePivot: () => Promise.resolve() },
};

test('goes by what the files are, whatever names the domain was defined with', async () => {
  using folder = scratch();
  mkdirSync(folder.path('images'));
  for (const name of ['base', 'other', 'overlay']) writeFileSync(folder.path(`images/${name}`), '');
  symlinkSync('images', folder.path('linked'));
  const asked: string[] = [];
  const virsh = {
    run: (command: string) => {
      asked.push(command);
      return Promise.reject(new Error('asked'));
    },
  } as unknown as Virsh;
  const merge = async (...backing: string[]): Promise<void> => {
    const vmDisk = { id: 'virtio-disk0', backingFiles: backing.map((file) => folder.path(file)) } as unknown as VmDisk;
    const disk = { base: { file: folder.path('images/base') }, overlay: { file: folder.path('images/overlay') } };
    await mergeByLibvirt(virsh, { disk, vmDisk, overlayNode: undefined, baseNode: undefined }, options);
  };
  await expect(merge('linked/base')).rejects.toThrow('asked');
  // Below a filter, the overlay itself comes first.
  await expect(merge('linked/overlay', 'linked/base')).rejects.toThrow('asked');
  expect(asked).toEqual(['dumpxml', 'dumpxml']);
  await expect(merge('linked/other')).rejects.toMatchObject({ code: 'E_MERGE_REFUSED' });
  await expect(merge()).rejects.toMatchObject({ code: 'E_MERGE_REFUSED' });
  expect(asked).toHaveLength(2);
});
