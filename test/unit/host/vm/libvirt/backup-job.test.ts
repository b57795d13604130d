// A limit that is asked for is kept, or the run is none.
import { beforeEach, expect, test } from 'vitest';
import { BackupJob } from '../../../../../src/host/vm/libvirt/backup-job.js';
import type { LibvirtMonitor } from '../../../../../src/host/vm/libvirt/monitor.js';
import { VirshError, type Virsh } from '../../../../../src/host/vm/libvirt/virsh.js';
import { vmDisk } from '../../../../support/vm-disks.js';

/** What virsh says, one after the other; then it does it. */
let refusals: string[];
let asked: string[];
const virsh = {
  run: (command: string, words: readonly string[]): Promise<string> => {
    asked.push([command, ...words].join(' '));
    const refusal = refusals.shift();
    return refusal === undefined ? Promise.resolve('') : Promise.reject(new VirshError('x', command, refusal, 'none'));
  },
} as unknown as Virsh;
const limit = async (speed: number | undefined) => {
  await new BackupJob(virsh, {} as unknown as LibvirtMonitor).limit({ disk: vmDisk('a', { device: 'vda' }), speed });
};
beforeEach(() => {
  refusals = [];
  asked = [];
});

test('is set, and nothing is asked without one', async () => {
  await limit(undefined);
  expect(asked).toEqual([]);
  await limit(7);
  expect(asked).toEqual(['blockjob vda --bandwidth 7 --bytes']);
});

test('is not needed for what is copied already', async () => {
  refusals = ["Job 'x' in state 'concluded' cannot accept", "disk 'vda' does not have an active block job"];
  await limit(7);
  expect(asked).toHaveLength(2);
});

test('ends the run if libvirt does not set it', async () => {
  refusals = ['cannot acquire state change lock', 'cannot acquire state change lock', 'still cannot'];
  await expect(limit(7)).rejects.toThrow('the limit of disk vda cannot be set: x, virsh blockjob: still cannot');
  expect(asked).toHaveLength(3);
});
