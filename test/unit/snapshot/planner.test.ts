import { describe, expect, test } from 'vitest';
import type { DiskLookup } from '../../../src/linux/disks.js';
import { planSet, type PlanWish } from '../../../src/snapshot/planner.js';
import type { Provider } from '../../../src/snapshot/providers/provider.js';
import type { Source } from '../../../src/snapshot/sources.js';
import { fakeProvider } from '../../support/fake-provider.js';
import { tableOf } from '../../support/mount-table.js';

const table = tableOf(`1 1 8:1 / / rw - ext4 /dev/sda1 rw
2 1 254:1 / /a rw - ext4 /dev/mapper/vg-a rw
3 2 254:2 / /a/b rw - xfs /dev/mapper/vg-b rw,logdev=/dev/sdb
4 1 254:1 /sub /again rw - ext4 /dev/mapper/vg-a rw
5 1 0:40 / /tmp rw - tmpfs tmpfs rw
`);
const chain = { devices: ['dm-1'], disks: [], direct: true, understood: true, files: [], restsOn: [] };
const lookup = { chainOf: () => chain } as unknown as DiskLookup;

const sources = table.mounts.map((mount): Source => {
  const filesystem = table.filesystemOfMount(mount);
  return { at: mount.mountpoint, inside: mount.root, mount, ...(filesystem === undefined ? {} : { filesystem }) };
});
const at = (...places: readonly string[]): readonly Source[] => sources.filter((source) => places.includes(source.at));

async function ways(places: readonly string[], providers: readonly Provider[], wish: Partial<PlanWish> = {}) {
  const plan = await planSet('run1', at(...places), lookup, providers, { requireSnapshot: false, ...wish });
  return plan.sources.map(({ source, way, snapshot, reason }) => [source.at, way, snapshot?.provider ?? reason]);
}

describe('each filesystem', () => {
  test('is cut by the first provider that takes it, and once, however many places lie on it', async () => {
    const [first, second] = [fakeProvider('first', { only: ['/a/b'] }), fakeProvider('second')];
    expect(await ways(['/a', '/a/b', '/again'], [first, second])).toEqual([
      ['/a', 'atomic', 'second'],
      ['/a/b', 'atomic', 'first'],
      ['/again', 'atomic', 'second'],
    ]);
    expect(second.calls.filter((call) => call.startsWith('plan'))).toEqual(['plan /a']);
  });

  test('that nobody takes is bound, with what each said, and so is what is no data', async () => {
    const providers = [fakeProvider('one', { only: [] }), fakeProvider('two', { only: [] })];
    expect(await ways(['/a', '/tmp'], providers)).toEqual([
      ['/a', 'bind', 'one has not /a; two has not /a'],
      ['/tmp', 'bind', 'tmpfs is no data on a block device'],
    ]);
    await expect(ways(['/a'], providers, { requireSnapshot: true })).rejects.toThrow('/a cannot be snapshot: one has');
  });
});

test('what is in memory below a path is shown live, and refused by nobody', async () => {
  const plan = await planSet(
    'run1',
    at('/a', '/tmp').map((source) => (source.at === '/tmp' ? { ...source, isFleeting: true } : source)),
    lookup,
    [fakeProvider('one')],
    { requireSnapshot: true },
  );
  expect(plan.sources.map(({ way }) => way)).toEqual(['atomic', 'live']);
});

describe('providers that freeze by themselves', () => {
  const alone = () => fakeProvider('alone', { underFreeze: false });

  test('cut several volumes one after another, and one alone at one instant', async () => {
    expect((await ways(['/a', '/a/b'], [alone()])).map(([, way]) => way)).toEqual(['per-volume', 'per-volume']);
    expect((await ways(['/a'], [alone()])).map(([, way]) => way)).toEqual(['atomic']);
  });

  test('beside another that does not are the only ones apart', async () => {
    const providers = [fakeProvider('frozen', { only: ['/a'] }), alone()];
    expect((await ways(['/a', '/a/b'], providers)).map(([, way]) => way)).toEqual(['atomic', 'per-volume']);
  });
});

test('the provider that is asked for is the only one, and must be there', async () => {
  const providers = [fakeProvider('one'), fakeProvider('two')];
  expect(await ways(['/a'], providers, { provider: 'two' })).toEqual([['/a', 'atomic', 'two']]);
  await expect(ways(['/a'], providers, { provider: 'zfs' })).rejects.toThrow(
    'one of the providers one, two, found zfs',
  );
});

test('a filesystem in a file on another of the set is not cut: its cut would wait for the thaw', async () => {
  const [outer, inner] = [table.filesystemOf('/a'), table.filesystemOf('/a/b')];
  const chainOf = (filesystem: unknown) => ({ ...chain, restsOn: filesystem === inner ? [outer] : [] });
  const within = { chainOf } as unknown as DiskLookup;
  const planned = async (...places: readonly string[]) =>
    (await planSet('run1', at(...places), within, [fakeProvider('one')], { requireSnapshot: false })).sources;
  expect((await planned('/a', '/a/b')).map(({ way, reason }) => [way, reason])).toEqual([
    ['atomic', undefined],
    ['bind', 'it lies in a file on /a, which is held as well'],
  ]);
  expect((await planned('/a/b')).map(({ way }) => way)).toEqual(['atomic']);
});

test('a filesystem with a part elsewhere is told of as split', async () => {
  const split = async (place: string, more: object = {}) => {
    const found = { chainOf: () => ({ ...chain, ...more }) } as unknown as DiskLookup;
    const wish = { requireSnapshot: false };
    return (await planSet('run1', at(place), found, [fakeProvider('one')], wish)).snapshots[0]?.volume.split;
  };
  expect(await split('/a')).toBeUndefined();
  expect(await split('/a/b')).toBe('it has a part on another device (logdev=/dev/sdb)');
  expect(await split('/a', { devices: ['dm-1', 'sdb'] })).toContain('it lies on dm-1 and sdb');
  expect(await split('/a', { lacksJournal: true })).toContain('which one cannot be told');
});
