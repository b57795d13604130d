// What became of an overlay cut, by what the files are and not by how the hypervisor spells them; and what is said when it
// can no longer be asked.
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { UnreachableError } from '../../../../src/errors.js';
import { compared } from '../../../../src/host/create/manifest-cut.js';
import { checkUnchanged, overlayCut } from '../../../../src/host/create/overlay-cut.js';
import type { CutHost } from '../../../../src/host/vm/hypervisor.js';
import type { Overlay } from '../../../../src/host/vm/overlay.js';
import type { VmDisk } from '../../../../src/qmp/block-graph.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

let folder: Scratch;
beforeEach(() => {
  folder = scratch();
  mkdirSync(folder.path('images'));
  symlinkSync('images', folder.path('linked'));
  for (const name of ['base.raw', 'overlay.qcow2', 'other.qcow2']) writeFileSync(folder.path(`images/${name}`), '');
});
afterEach(() => {
  folder[Symbol.dispose]();
});

function diskOn(file: string, format: string, below: readonly [string, string][] = []): VmDisk {
  return {
    device: 'vda',
    id: 'vda',
    rootNode: 'node',
    node: 'node',
    format,
    file,
    name: file,
    virtualSize: 0,
    readOnly: false,
    removable: false,
    cache: { direct: false, noFlush: false },
    detectZeroes: 'off',
    below: below.map(([layer, layerFormat]) => ({ file: layer, format: layerFormat })),
    backingFiles: below.map(([layer]) => layer),
    dataFiles: [],
    shared: false,
  };
}

const image = (name: string): string => folder.path(`images/${name}`);
const linked = (name: string): string => folder.path(`linked/${name}`);
const planned = (): Overlay => ({
  disk: diskOn(image('base.raw'), 'raw'),
  file: image('overlay.qcow2'),
  node: 'fsb-0-0',
  baseName: image('base.raw'),
});

/** A host whose disks are these; without them it no longer answers. */
function hostWith(disks: readonly VmDisk[] | undefined, cutProvesBase = false): CutHost {
  const host: Partial<CutHost> = {
    path: folder.path('qmp.sock'),
    cutProvesBase,
    disks: () =>
      disks === undefined
        ? Promise.reject(new UnreachableError('E_MONITOR', 'nobody listens there'))
        : Promise.resolve(disks),
    cutIsOver: () => Promise.resolve(),
  };
  return host as CutHost;
}

const proved = { level: 'filesystem', evidence: [] } as const;
const worth = { ...proved, disks: [proved] };

describe('a hypervisor that spells the files in another way', () => {
  const spelled = (overlay: string, base: string): CutHost =>
    hostWith([diskOn(linked(overlay), 'qcow2', [[linked(base), 'raw']])]);

  test('uses the overlay, whose answer was lost', async () => {
    expect(await overlayCut(spelled('overlay.qcow2', 'base.raw'), [planned()]).became(1)).toBe('cut');
    expect(await overlayCut(spelled('other.qcow2', 'base.raw'), [planned()]).became(1)).toBe('not cut');
  });

  test('has what was planned', async () => {
    expect(await overlayCut(spelled('overlay.qcow2', 'base.raw'), [planned()]).verify()).toMatchObject([
      { doubt: undefined, isLost: false },
    ]);
    await checkUnchanged(hostWith([diskOn(linked('base.raw'), 'raw')]), [planned()]);
  });

  test('has what somebody else put there', async () => {
    expect(await overlayCut(spelled('other.qcow2', 'base.raw'), [planned()]).verify()).toMatchObject([
      { isLost: true, doubt: expect.stringContaining('other.qcow2') as string },
    ]);
    expect(await overlayCut(spelled('overlay.qcow2', 'other.qcow2'), [planned()]).verify()).toMatchObject([
      { isLost: false, doubt: expect.stringContaining('other.qcow2') as string },
    ]);
    await expect(checkUnchanged(hostWith([diskOn(linked('other.qcow2'), 'raw')]), [planned()])).rejects.toMatchObject({
      code: 'E_CHANGED',
    });
  });
});

describe('a hypervisor that can no longer be asked after the cut', () => {
  test('leaves the set at crash, with the reason, if its cut says nothing of what lies below', async () => {
    const findings = await overlayCut(hostWith(undefined), [planned()]).verify();
    const found = compared(worth, findings, ['vda']);
    expect(found).toMatchObject({ level: 'crash', disks: [{ level: 'crash' }] });
    expect(found.evidence.join()).toMatch(/disk vda: .*could not be asked: .*nobody listens there/);
  });

  test('leaves the level as it was if its cut is the proof', async () => {
    const findings = await overlayCut(hostWith(undefined, true), [planned()]).verify();
    expect(compared(worth, findings, ['vda'])).toEqual(worth);
    expect(findings[0]?.chain).toEqual([{ file: image('base.raw'), format: 'raw' }]);
  });
});
