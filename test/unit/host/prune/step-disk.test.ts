import { expect, test } from 'vitest';
import { refuseUnknown } from '../../../../src/host/prune/step-disk.js';
import type { VmDisk } from '../../../../src/qmp/block-graph.js';
import type { Monitor } from '../../../../src/qmp/monitor.js';

// Nobody whom we see listens there.
const monitor = { path: '/nowhere/qmp.sock' } as Monitor;
const disk = (...files: string[]): VmDisk =>
  ({ file: files[0] ?? '', backingFiles: files.slice(1) }) as unknown as VmDisk;

test('refuses a layer by a name of which nobody knows where it leads, before anything is merged', async () => {
  const refused = refuseUnknown(monitor, [disk('/img/b'), disk('/img/a.s1', 'images/a')]);
  await expect(refused).rejects.toThrow('nothing was pruned: QEMU has images/a open, and where that lies');
  await expect(refuseUnknown(monitor, [disk('/img/a.s1', '/img/a'), disk('nbd://host/x')])).resolves.toBeUndefined();
});
