import { basename } from 'node:path';
import { describe, expect, test } from 'vitest';
import { planOverlays } from '../../../../src/host/create/overlays.js';
import { vmDisk } from '../../../support/vm-disks.js';

const ID = '0123abcd';

async function names(set: string, ...files: readonly string[]): Promise<string[]> {
  const overlays = await planOverlays(
    files.map((file) => vmDisk('vd0', { format: 'raw', file, name: file })),
    set,
    ID,
    '/overlays',
  );
  return overlays.map(({ file }) => basename(file));
}

describe('names of overlays', () => {
  test('do not grow from set to set', async () => {
    let [file = ''] = await names('20260101-093000', '/img/disk.qcow2');
    for (let night = 0; night < 20; night++) [file = ''] = await names('20260102-093000', `/img/${file}`);
    expect(file).toBe(`disk.20260102-093000-${ID}.qcow2`);
  });

  test('fit into a directory entry, whatever the image is called, and characters stay whole', async () => {
    const [file = ''] = await names('nightly', `/img/${'ä'.repeat(125)}.raw`);
    expect(Buffer.byteLength(file)).toBeLessThanOrEqual(255);
    expect(file).toMatch(new RegExp(`^ä+\\.nightly-${ID}\\.qcow2$`));
  });

  test('differ in one folder for images of one name, also where another image is called as the next one would be', async () => {
    const files = await names('s1', '/x/d-2.raw', '/y/d.raw', '/z/d.raw', '/w/d.raw');
    expect(new Set(files).size).toBe(4);
  });
});
