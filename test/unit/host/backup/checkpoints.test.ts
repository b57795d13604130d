// Which run an increment starts from, by the checkpoints that the VM has.
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { checkpointsToKeep, chooseBase, isSuperfluous } from '../../../../src/host/backup/checkpoints.js';
import { VmFolder } from '../../../../src/host/repository/layout.js';
import type { RunManifest } from '../../../../src/host/repository/run-manifest.js';
import { runDisk, runNumbered, runOf } from '../../../support/runs.js';
import { scratch, type Scratch } from '../../../support/scratch.js';
import { vmDisk } from '../../../support/vm-disks.js';

let scratchFolder: Scratch;
let folder: VmFolder;
beforeEach(() => {
  scratchFolder = scratch();
  folder = new VmFolder(scratchFolder.dir, 'vm');
});
afterEach(() => {
  scratchFolder[Symbol.dispose]();
});

const all = [runOf(1), runOf(2), runOf(3)];
const name = (number: number): string => `fsb-0a1b2c3d-${runNumbered(number)}-0`;
const { signal } = new AbortController();
const disk = vmDisk('data0', { virtualSize: 1024 });
const has = (...numbers: readonly number[]) =>
  numbers.map((number) => ({ name: name(number), dirtyBytes: number, why: undefined }));
const store = (...numbers: readonly number[]): void => {
  for (const number of numbers) {
    mkdirSync(folder.run(runNumbered(number)), { recursive: true });
    writeFileSync(`${folder.run(runNumbered(number))}/data0.qcow2`, 'abc');
  }
};
const choose = async (
  checkpoints: ReturnType<typeof has>,
  runs: readonly RunManifest[] = all,
  forgotten: string[] = [],
) =>
  await chooseBase(disk, checkpoints, 'image', {
    folder,
    runs: { all: runs, forgotten: new Set(forgotten), unreadable: [] },
    inodes: [],
    maxChain: 30,
    encrypt: undefined,
    signal,
  });

test('is the newest that is there, with what it says is dirty', async () => {
  store(1, 2, 3);
  expect(await choose(has(1, 3, 2))).toMatchObject({ kind: 'incremental', manifest: all[2], since: { dirtyBytes: 3 } });
  expect(await choose(has(1, 2))).toMatchObject({ kind: 'incremental', manifest: all[1] });
  expect(await choose(has(1, 2, 3), all, [runNumbered(3)])).toMatchObject({ manifest: all[1] });
});

test('is passed over where it cannot be relied on, or its files are not there', async () => {
  store(1);
  const broken = has(3, 1).map((each) => (each.name === name(3) ? { ...each, why: 'QEMU was killed' } : each));
  expect(await choose(broken as ReturnType<typeof has>)).toMatchObject({ manifest: all[0] });
  expect(await choose(has(3, 2, 1))).toMatchObject({ manifest: all[0] });
});

test.each([
  ['no run', has(), [], 'no earlier run is there'],
  ['a disk in no run', has(), [runOf(1, undefined, { disks: [] })], 'the disk is in no earlier run'],
  ['no checkpoint', has(), all, 'the VM has none of the checkpoints of earlier runs: QEMU ended without storing them'],
  ["others' checkpoints alone", [{ name: 'theirs', dirtyBytes: 1, why: undefined }], all, 'the VM has none'],
])('is none with %s, and it is said why', async (_what, checkpoints, runs, why) => {
  expect(await choose(checkpoints, runs)).toMatchObject({ kind: 'full', why: expect.stringContaining(why) as string });
});

test.each([
  ['failed its boot test', 'booted', { bootedAt: '', accelerator: 'tcg', testMs: 1, checks: [], notes: [] }],
  ['was found damaged', 'verified', { verifiedAt: '' }],
])('is none that %s, and none before it, until it is judged anew', async (words, kind, rest) => {
  store(1, 2, 3);
  mkdirSync(`${folder.path}/${kind}`);
  const file = `${folder.path}/${kind}/${runNumbered(3)}.json`;
  const verdict = { format: 1, run: runNumbered(3), problems: ['no root'], ...rest };
  writeFileSync(file, JSON.stringify(verdict));
  expect(await choose(has(1, 2, 3))).toMatchObject({
    kind: 'full',
    why: `no increment of run ${runNumbered(3)}: run ${runNumbered(3)} ${words} (no root)`,
  });
  writeFileSync(file, JSON.stringify({ ...verdict, problems: [] }));
  expect(await choose(has(1, 2, 3))).toMatchObject({ kind: 'incremental', manifest: all[2] });
});

test('is none for a resized disk', async () => {
  store(1, 2, 3);
  const found = await chooseBase({ ...disk, virtualSize: 2048 }, has(3), 'image', {
    folder,
    runs: { all, forgotten: new Set(), unreadable: [] },
    inodes: [],
    maxChain: 30,
    encrypt: undefined,
    signal,
  });
  expect(found).toMatchObject({ kind: 'full', why: expect.stringContaining('resized from 1024 to 2048') as string });
});

test('is none from before a disk had another size, though it is as large as then', async () => {
  store(1, 2, 3);
  const sized = (number: number, id: string, virtualSize: number): RunManifest =>
    runOf(number, undefined, { disks: [runDisk(id, { virtualSize, checkpoint: name(number) })] });
  const runs = [sized(1, 'data0', 1024), sized(2, 'data0', 512)];
  const full = (why: string) => ({ kind: 'full', why: expect.stringContaining(why) as string });
  expect(await choose(has(1, 2), runs)).toMatchObject(full('resized from 512 to 1024'));
  // Its checkpoint may be broken or gone, and nobody may want it any more.
  const broken = has(1, 2).map((each) => (each.name === name(2) ? { ...each, why: 'QEMU was killed' } : each));
  expect(await choose(broken as ReturnType<typeof has>, runs)).toMatchObject(full('resized'));
  const another = full(`another size in run ${runNumbered(2)}`);
  expect(await choose(has(1), runs)).toMatchObject(another);
  expect(await choose(has(1), runs, [runNumbered(2)])).toMatchObject(another);
  // It was plugged under another name meanwhile.
  expect(await choose(has(1), [sized(1, 'old0', 1024), sized(2, 'data0', 512)])).toMatchObject(another);
  const kept = checkpointsToKeep({ all: [...runs, sized(3, 'data0', 1024)], forgotten: new Set(), unreadable: [] }, 3);
  expect([...kept]).toEqual([name(3)]);
});

test('are kept for each disk, however often others are backed up', () => {
  const root = runOf(1, undefined, { disks: [runDisk('root0', { checkpoint: name(1) })] });
  const kept = checkpointsToKeep({ all: [root, runOf(2), runOf(3)], forgotten: new Set(), unreadable: [] }, 1);
  expect([...kept].sort()).toEqual([name(1), name(3)]);
});

test('only checkpoints of this repository that nobody keeps are superfluous', () => {
  const kept = checkpointsToKeep({ all, forgotten: new Set([runNumbered(2)]), unreadable: [] }, 1);
  const isIt = isSuperfluous('0a1b2c3d', kept);
  expect([...kept]).toEqual([name(3)]);
  expect([name(1), name(3), 'theirs', `fsb-ffffffff-${runNumbered(1)}-0`].map(isIt)).toEqual([
    true,
    false,
    false,
    false,
  ]);
});

test('is passed over if a file of it cannot be read, and it is said why', async () => {
  store(1, 2);
  // Fails as an unreadable sector does: with what the kernel says.
  mkdirSync(folder.path, { recursive: true });
  symlinkSync(runNumbered(3), folder.run(runNumbered(3)));
  expect(await choose(has(3))).toMatchObject({ kind: 'full', why: expect.stringContaining('ELOOP') as string });
});

test('one name on several disks is that of the disk whose image this is, and of no other', async () => {
  store(1);
  const checkpoint = name(1);
  const on = (id: string, inode: string, below: string[] = []) =>
    runDisk(id, { checkpoint, source: { file: `/img/${id}.qcow2`, format: 'qcow2', below, inodes: [inode] } });
  const of = async (disks: RunManifest['disks'], inodes: readonly string[]) =>
    await chooseBase(disk, has(1), 'image', {
      folder,
      runs: { all: [runOf(1, undefined, { disks })], forgotten: new Set(), unreadable: [] },
      inodes,
      maxChain: 30,
      encrypt: undefined,
      signal,
    });
  expect(await of([on('data1', '2'), on('data0', '1')], ['1'])).toMatchObject({ file: { id: 'data0' } });
  // Exchanged by `mv`.
  expect(await of([on('data1', '2'), on('data0', '1')], ['2'])).toMatchObject({
    kind: 'full',
    why: expect.stringContaining('its image is none of theirs') as string,
  });
  // Both lay on it.
  const both = [on('data1', '2', ['/img/data0.qcow2']), on('data2', '3', ['/img/data0.qcow2'])];
  expect(await of(both, ['1'])).toMatchObject({
    kind: 'full',
    why: expect.stringContaining('its image is that of more than one') as string,
  });
  // A device has none.
  expect(await of([on('data1', ''), on('data0', '')], [''])).toMatchObject({ file: { id: 'data0' } });
});

test('one that no image keeps is of the files that the disk was on, whatever lies on them now', async () => {
  store(1);
  const of = async (file: string, backingFiles: string[], then: string[], inodes: string[] = []) =>
    await chooseBase(
      { ...disk, file, backingFiles },
      has(1).map((each) => ({ ...each, ofProcess: true })),
      'process',
      {
        folder,
        runs: {
          all: [
            runOf(1, undefined, {
              disks: [
                runDisk('data0', {
                  checkpoint: name(1),
                  source: { file: then[0] ?? '', format: 'raw', below: then.slice(1), inodes: ['1'] },
                }),
              ],
            }),
          ],
          forgotten: new Set(),
          unreadable: [],
        },
        inodes,
        maxChain: 30,
        encrypt: undefined,
        signal: new AbortController().signal,
      },
    );
  expect(await of('/a.raw', [], ['/a.raw'])).toMatchObject({ kind: 'incremental' });
  expect(await of('/o2', ['/a.raw'], ['/o1', '/a.raw'])).toMatchObject({ kind: 'incremental' });
  const none = { kind: 'full', why: expect.stringContaining('none of theirs') as string };
  expect(await of('/b.raw', [], ['/a.raw'])).toMatchObject(none);
  expect(await of('/a.raw', [], ['/a.raw'], ['2'])).toMatchObject(none);
});
