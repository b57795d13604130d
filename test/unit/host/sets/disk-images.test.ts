// Which image a disk is on, as the host knows it, and whether a run is of that disk.
import { mkdirSync } from 'node:fs';
import { expect, test } from 'vitest';
import { imageOf, noteDisks } from '../../../../src/host/sets/disk-images.js';
import type { Manifest } from '../../../../src/host/sets/manifest.js';
import { noteReached, readRecord } from '../../../../src/host/sets/vm-record.js';
import { socketAt } from '../../../../src/host/vm/place.js';
import { scratch } from '../../../support/scratch.js';
import { vmDisk } from '../../../support/vm-disks.js';

const identity = { kind: 'uuid', uuid: '11111111-2222-3333-4444-555555555555' } as const;
const layer = (file: string) => ({ file, format: 'qcow2' });
const set = (base: string, overlay: string) =>
  ({ disks: [{ id: 'data0', base: layer(base), overlay: layer(overlay) }] }) as unknown as Manifest;
const on = (file: string, serial = 'S') => vmDisk('data0', { id: 'data0', serial, file });

test('outlasts the sets that put the disk on other images', async () => {
  using folder = scratch();
  mkdirSync(folder.path(identity.uuid));
  await noteReached(folder.dir, identity, { name: 'db', monitor: socketAt('/run/db') });
  const known = async () => (await readRecord(folder.dir, identity.uuid))?.disks ?? [];
  const asked = async (file: string, serial = 'S') =>
    await imageOf({ id: 'data0', serial, source: { file } }, 'run 1', await known(), []);
  await expect(asked('/a')).rejects.toMatchObject({ code: 'E_NEWEST_UNKNOWN' });
  await noteDisks(folder.dir, identity, [on('/a')], []);
  expect(await asked('/a')).toMatchObject({ file: '/a', format: 'qcow2' });
  await expect(asked('/o')).rejects.toThrow('expected /o (serial S), as run 1 says, found /a (serial S)');
  await noteDisks(folder.dir, identity, [on('/o')], [set('/a', '/o')]);
  expect(await asked('/a')).toMatchObject({ file: '/o' });
  // The set was merged, and is gone.
  await noteDisks(folder.dir, identity, [on('/a')], []);
  expect(await asked('/o')).toMatchObject({ file: '/a' });
  // How it was reached is written anew, and what is known of its disks stays.
  await noteReached(folder.dir, identity, { name: 'db', monitor: socketAt('/run/db') });
  expect(await asked('/o')).toMatchObject({ file: '/a' });
  await expect(asked('/a', 'T')).rejects.toMatchObject({ code: 'E_NO_IMAGE' });
  // Another disk under the same id has none of its past.
  await noteDisks(folder.dir, identity, [on('/b', 'T')], []);
  await expect(asked('/a', 'T')).rejects.toMatchObject({ code: 'E_NO_IMAGE' });
});
