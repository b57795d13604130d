// What a cut by backup jobs came to, by what the hypervisor tells.
import { describe, expect, test } from 'vitest';
import { backupCut, checkDisks } from '../../../../src/host/create/backup-cut.js';
import type { BackupHost, BackupTarget, CutHost } from '../../../../src/host/vm/hypervisor.js';
import type { VmDisk } from '../../../../src/qmp/block-graph.js';
import { vmDisk } from '../../../support/vm-disks.js';

const disks = [vmDisk('a'), vmDisk('b')];
const targets = disks.map((disk) => ({ disk }) as BackupTarget);
const host = (now: readonly VmDisk[] | Error): CutHost => {
  const answer = (): Promise<readonly VmDisk[]> => (now instanceof Error ? Promise.reject(now) : Promise.resolve(now));
  return { disks: answer, cutIsOver: () => Promise.resolve() } as Partial<CutHost> as CutHost;
};
const begun = (count: number): BackupHost =>
  ({ begun: () => Promise.resolve(targets.slice(0, count)) }) as Partial<BackupHost> as BackupHost;

describe('after a lost answer', () => {
  test.each([
    [0, 'not cut'],
    [2, 'cut'],
  ])('%i jobs of two mean %s', async (count, expected) => {
    expect(await backupCut(host(disks), begun(count), targets).became(1)).toBe(expected);
  });

  test('one of two jobs is nothing that is known', async () => {
    await expect(backupCut(host(disks), begun(1), targets).became(1)).rejects.toMatchObject({ outcome: 'unknown' });
  });
});

describe('the disks of the VM', () => {
  const verify = async (now: readonly VmDisk[] | Error) => await backupCut(host(now), begun(2), targets).verify();

  test('are as planned', async () => {
    expect(await verify(disks)).toEqual(disks.map(() => ({ doubt: undefined, isLost: false })));
    await expect(checkDisks(host(disks), targets)).resolves.toBeUndefined();
  });

  test.each<[string, VmDisk | undefined, boolean]>([
    ['another node', vmDisk('b', { node: 'overlay' }), true],
    ['another size', vmDisk('b', { virtualSize: 2 }), false],
    ['no such disk', undefined, false],
  ])('have %s: a doubt, and what was copied is lost: %s', async (_what, other, isLost) => {
    const now = other === undefined ? disks.slice(0, 1) : [disks[0] as VmDisk, other];
    expect((await verify(now))[1]).toMatchObject({ isLost, doubt: expect.stringContaining('somebody else') as string });
    await expect(checkDisks(host(now), targets)).rejects.toMatchObject({ code: 'E_CHANGED' });
  });

  test('that cannot be asked for are a doubt', async () => {
    const [finding] = await verify(new Error('gone'));
    expect(finding).toEqual({ doubt: 'whether the VM still used the disk could not be asked: gone', isLost: false });
  });
});
