import { existsSync, mkdirSync, readlinkSync, symlinkSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { removeSet } from '../../../src/host/snapshot-delete.js';
import { LINKS } from '../../../src/host/sets/current-images.js';
import { ManifestStore } from '../../../src/host/sets/manifest-store.js';
import { manifest } from '../../support/manifests.js';
import { scratch } from '../../support/scratch.js';

test.each([
  ["is not the set's own any more", true],
  ['was removed', false],
])('a set that is removed leaves no link to an overlay that %s', async (_what, isThere) => {
  using folder = scratch();
  const [image, overlay] = [folder.path('a'), folder.path('a.s1')];
  writeFileSync(image, '');
  if (isThere) writeFileSync(overlay, 'of another VM');
  const store = new ManifestStore(folder.dir, 'vm1');
  await store.claim('s1', '');
  const set = await store.write({ ...manifest('s1', undefined, image, overlay), state: 'deleting' });
  const link = folder.path(`vm1/${LINKS}/vd0`);
  mkdirSync(folder.path(`vm1/${LINKS}`));
  symlinkSync(overlay, link);
  await removeSet(store, set, [], isThere ? [overlay] : []);
  expect(readlinkSync(link)).toBe(image);
  expect(existsSync(overlay)).toBe(isThere);
  expect(await store.names()).toEqual([]);
});
