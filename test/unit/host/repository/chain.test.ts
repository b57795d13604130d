// A chain is what the records say; a run that is not there, or is another than was recorded, breaks it.
import { expect, test } from 'vitest';
import { chainOf } from '../../../../src/host/repository/chain.js';
import { VmFolder } from '../../../../src/host/repository/layout.js';
import type { RunManifest } from '../../../../src/host/repository/run-manifest.js';
import { runDisk, runNumbered, runOf } from '../../../support/runs.js';

const folder = new VmFolder('/repo', 'vm');
const chain = (all: readonly RunManifest[], top: RunManifest): string[] => {
  const [disk] = top.disks;
  if (disk === undefined) throw new Error('no disk');
  return chainOf(folder, all, top, disk).map(({ file }) => file);
};

test('goes from the newest to the full one', () => {
  const all = [runOf(1), runOf(2, 1), runOf(3, 2)];
  expect(chain(all, all[2] as RunManifest)).toEqual([3, 2, 1].map((n) => `/repo/vm/${runNumbered(n)}/data0.qcow2`));
});

test.each<[string, readonly RunManifest[], RunManifest, RegExp]>([
  ['a run that is not there', [runOf(3, 2)], runOf(3, 2), /lies on data0.qcow2 of run .*02, which is not there/],
  [
    'another file than the one recorded',
    [runOf(1, undefined, { disks: [runDisk('data0', { file: { ...runDisk('data0').file, blake2b: 'f' } })] })],
    runOf(2, 1),
    /lies on another data0.qcow2 of run/,
  ],
  ['runs that lie on each other', [runOf(1, 2), runOf(2, 1)], runOf(1, 2), /lies on itself/],
  [
    'an increment of nothing',
    [],
    runOf(1, undefined, { disks: [runDisk('data0', { kind: 'incremental' })] }),
    /does not say what it lies on/,
  ],
])('refuses %s', (_what, all, top, message) => {
  expect(() => chain(all, top)).toThrow(message);
});
