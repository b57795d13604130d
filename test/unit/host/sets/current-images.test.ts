import { execa } from 'execa';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { oldestFirst } from '../../../../src/host/sets/chain-order.js';
import {
  currentImages,
  leaveOverlays,
  refreshLinks,
  linkName,
  switchLinks,
} from '../../../../src/host/sets/current-images.js';
import { ManifestStore } from '../../../../src/host/sets/manifest-store.js';
import type { Manifest } from '../../../../src/host/sets/manifest.js';
import { viewSet, type DiskView, type SetView } from '../../../../src/host/sets/set-view.js';
import { manifest } from '../../../support/manifests.js';
import { requires } from '../../../support/requires.js';

const needed = requires('qemu-img');

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'fsb-links-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

function view(set: string, newest: DiskView['newest']): SetView {
  const disk: DiskView = {
    id: 'vd0',
    holdsCut: true,
    isCutKnown: true,
    missing: [],
    level: 'crash',
    newest,
    inUse: undefined,
    notes: [],
  };
  return { manifest: manifest(set), level: 'crash', disks: [disk], notes: [] };
}

const overlay = { layer: 'overlay', file: '/img/a.s2', format: 'qcow2' } as const;
const base = { layer: 'base', file: '/img/a', format: 'raw' } as const;

test('takes the word of the newest set of a disk', async () => {
  expect(await currentImages([view('s1', base), view('s2', overlay)])).toMatchObject([
    { id: 'vd0', set: 's2', image: { file: '/img/a.s2', format: 'qcow2' } },
  ]);
});

/** A set whose overlay was merged. */
function committed(set: string, createdAt: string, onto: string, overlayFile: string): Manifest {
  const live = manifest(set, createdAt, onto, overlayFile);
  return { ...live, state: 'committed', disks: live.disks.map((disk) => ({ ...disk, merged: true })) };
}

/** Where the link of the disk leads, by these sets of a VM. */
async function linkedBy(...sets: readonly Manifest[]): Promise<string> {
  const views: SetView[] = [];
  for (const each of await oldestFirst(sets)) {
    views.push(await viewSet(each, { monitors: [], isRunning: true, isBusy: false }));
  }
  await switchLinks(join(folder, 'links'), await currentImages(views));
  return readlinkSync(join(folder, 'links', 'vd0'));
}

const [EARLY, LATE] = ['2026-01-01T00:00:00Z', '2026-01-02T00:00:00Z'] as const;

test('names no overlay that was merged, because a newer set lay on it that was merged before', async () => {
  const [image, two, three] = [join(folder, 'vd0'), join(folder, 'vd0.s2'), join(folder, 'vd0.s3')];
  writeFileSync(image, '');
  for (const state of ['committed', 'failed'] as const) {
    const last = { ...committed('s3', LATE, two, three), state };
    const disks = state === 'failed' ? manifest('s3', LATE, two, three).disks : last.disks;
    expect(await linkedBy(committed('s2', EARLY, image, two), { ...last, disks })).toBe(image);
  }
  // The older set is forgotten: the link stays where it is.
  expect(await linkedBy(committed('s3', LATE, two, three))).toBe(image);
});

needed('an image that a set was merged into, and that another was cut over', () => {
  test.each([
    [EARLY, LATE],
    [LATE, EARLY],
  ])('is not the newest, also where the clock was set back in between (%s, %s)', async (first, second) => {
    const [image, one, two] = [join(folder, 'vd0'), join(folder, 'vd0.s1'), join(folder, 'vd0.s2')];
    writeFileSync(image, '');
    await execa('qemu-img', ['create', '-q', '-f', 'qcow2', two, '1M']);
    expect(await linkedBy(manifest('s2', second, image, two), committed('s1', first, image, one))).toBe(two);
  });
});

test('switches a link and its format, and leaves none to an image that is not known', async () => {
  const link = join(folder, 'vd0');
  const formatOf = (): string => readFileSync(`${link}.format`, 'utf8');
  await switchLinks(folder, await currentImages([view('s1', overlay)]));
  expect([readlinkSync(link), formatOf()]).toEqual(['/img/a.s2', 'qcow2\n']);
  await switchLinks(folder, await currentImages([view('s1', base)]));
  expect([readlinkSync(link), formatOf()]).toEqual(['/img/a', 'raw\n']);
  await switchLinks(folder, await currentImages([view('s1', undefined)]));
  expect([existsSync(`${link}.format`), existsSync(link)]).toEqual([false, false]);
});

test('makes no file of a name that a monitor made up', async () => {
  const [image] = await currentImages([view('s1', base)]);
  if (image === undefined) throw new Error('no image');
  await switchLinks(folder, [{ ...image, id: '../../evil' }]);
  expect(existsSync(join(folder, '../../evil'))).toBe(false);
});

test('keeps the link of a disk that no set holds any more, if it leads somewhere', async () => {
  const image = join(folder, 'image');
  writeFileSync(image, '');
  const links = join(folder, 'links');
  const [current] = await currentImages([view('s1', base)]);
  if (current === undefined) throw new Error('no image');
  await switchLinks(links, [{ ...current, image: { file: image, format: 'raw' } }]);
  await switchLinks(links, []);
  expect(readdirSync(links).sort()).toEqual(['vd0', 'vd0.format']);
  rmSync(image);
  await switchLinks(links, []);
  expect(readdirSync(links)).toEqual([]);
});

test('makes a link again whose maker was killed before it had its name, and keeps no half of one', async () => {
  const image = join(folder, 'image');
  writeFileSync(image, '');
  const links = join(folder, 'links');
  mkdirSync(links);
  for (const half of ['vd0.new', 'other.new']) symlinkSync(image, join(links, half));
  await switchLinks(links, await currentImages([view('s1', base)]));
  expect(readlinkSync(join(links, 'vd0'))).toBe('/img/a');
  expect(readdirSync(links).sort()).toEqual(['vd0', 'vd0.format']);
  symlinkSync(image, join(links, 'vd0.new'));
  rmSync(join(links, 'vd0'));
  symlinkSync('/img/a.s1', join(links, 'vd0'));
  await leaveOverlays(links, manifest('s1'), ['/img/a.s1']);
  expect(readlinkSync(join(links, 'vd0'))).toBe('/img/a');
});

test('removes no image that somebody has put in the place of a link', async () => {
  const file = join(folder, 'vd0');
  writeFileSync(file, 'image');
  await switchLinks(folder, await currentImages([view('s1', overlay)]));
  await switchLinks(folder, await currentImages([view('s1', undefined)]));
  expect(readFileSync(file, 'utf8')).toBe('image');
});

test('keeps no link to the base of a set, by which the disk had another id', async () => {
  const [image, links] = [join(folder, 'image'), join(folder, 'links')];
  writeFileSync(image, '');
  mkdirSync(links);
  symlinkSync(image, join(links, 'old'));
  writeFileSync(join(links, 'old.format'), 'raw\n');
  const store = new ManifestStore(folder, 'vm1');
  await store.claim('s1', '');
  await store.write(manifest('s1', EARLY, image, join(folder, 'image.s1')));
  await refreshLinks(store, links);
  expect(readdirSync(links)).toEqual([]);
});

test('leads to the base before the overlay is removed, and leaves a link elsewhere alone', async () => {
  const link = join(folder, 'vd0');
  symlinkSync('/img/a.s1', link);
  await leaveOverlays(folder, manifest('s1'), ['/img/other']);
  expect(readlinkSync(link)).toBe('/img/a.s1');
  await leaveOverlays(folder, manifest('s1'), ['/img/a.s1']);
  expect([readlinkSync(link), readFileSync(`${link}.format`, 'utf8')]).toEqual(['/img/a', 'raw\n']);
});

test('has a name for the device that nobody gave one, and none for two of the same name', async () => {
  expect(['device[0]', '/machine/peripheral-anon/device[1]', 'a.format', '..'].map(linkName)).toEqual([
    'device-0',
    'machine-peripheral-anon-device-1',
    'disk-a-format',
    'disk-',
  ]);
  const [current] = await currentImages([view('s1', base)]);
  if (current === undefined) throw new Error('no image');
  await switchLinks(folder, [
    { ...current, id: 'a[0]' },
    { ...current, id: 'a 0' },
    { ...current, id: 'b' },
  ]);
  expect(readdirSync(folder).sort()).toEqual(['b', 'b.format']);
});

test('leaves no link to a base that its path alone does not open, unless all it lacks is the key', async () => {
  const link = join(folder, 'vd0');
  const onBase = async (options: object): Promise<boolean> => {
    const set = view('s1', base);
    const name = `json:${JSON.stringify({ driver: 'raw', ...options, file: { driver: 'file', filename: '/img/a' } })}`;
    const disks = set.manifest.disks.map((disk) => ({ ...disk, base: { ...disk.base, name } }));
    const told = { ...set.manifest, disks };
    const images = await currentImages([{ ...set, manifest: told }]);
    expect(images).toMatchObject([{ image: { file: '/img/a', name } }]);
    await switchLinks(folder, images);
    const isLinked = existsSync(`${link}.format`);
    rmSync(link, { force: true });
    symlinkSync('/img/a.s1', link);
    await leaveOverlays(folder, told, ['/img/a.s1']);
    expect(existsSync(`${link}.format`)).toBe(isLinked);
    return isLinked;
  };
  expect(await onBase({ 'encrypt.key-secret': 's0' })).toBe(true);
  expect(await onBase({ offset: 512, size: 1024 })).toBe(false);
});
