import { existsSync, mkdtempSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { currentImages, switchLinks } from '../../../../src/host/sets/current-images.js';
import type { DiskView, SetView } from '../../../../src/host/sets/set-view.js';
import { manifest } from '../../../support/manifests.js';

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

it('takes the word of the newest set of a disk', () => {
  expect(currentImages([view('s1', base), view('s2', overlay)])).toMatchObject([
    { id: 'vd0', set: 's2', image: { file: '/img/a.s2', format: 'qcow2' } },
  ]);
});

it('switches a link and its format, and leaves none to an image that is not known', async () => {
  const link = join(folder, 'vd0');
  const formatOf = (): string => readFileSync(`${link}.format`, 'utf8');
  await switchLinks(folder, currentImages([view('s1', overlay)]));
  expect([readlinkSync(link), formatOf()]).toEqual(['/img/a.s2', 'qcow2\n']);
  await switchLinks(folder, currentImages([view('s1', base)]));
  expect([readlinkSync(link), formatOf()]).toEqual(['/img/a', 'raw\n']);
  await switchLinks(folder, currentImages([view('s1', undefined)]));
  expect([existsSync(`${link}.format`), existsSync(link)]).toEqual([false, false]);
});

it('makes no file of a name that a monitor made up', async () => {
  const [image] = currentImages([view('s1', base)]);
  if (image === undefined) throw new Error('no image');
  await switchLinks(folder, [{ ...image, id: '../../evil' }]);
  expect(existsSync(join(folder, '../../evil'))).toBe(false);
});
