// `torture -- images` in small: a calm sequence holds, a sequence with every kind of restart is judged, and the judge sees
// what it is there to see. Long runs are `npm run torture -- images`.
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, rmSync, utimesSync, writeFileSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { expect, test } from 'vitest';
import { doAct } from '../torture/images/acts.js';
import type { Act, Strike } from '../torture/images/act.js';
import type { DrawnVm, ImagesDraw } from '../torture/images/draw.js';
import { Lab } from '../torture/images/lab.js';
import { runImages } from '../torture/images/run.js';
import { judgeNow, judgeRecovered } from '../torture/images/verdict.js';
import { requires } from '../support/requires.js';

const vm: DrawnVm = {
  disks: [
    { format: 'raw', golden: false },
    { format: 'qcow2', golden: true },
  ],
  spelling: 'plain',
  uuid: true,
  paused: false,
};
const place = (acts: readonly Act[]): ImagesDraw => ({
  layout: { sharedImages: true, sharedOverlays: true, sameNames: false, vms: [vm, { ...vm, uuid: false }] },
  acts,
});
const strike: Strike | undefined = undefined;
const write = (at: number, of = 0): Act => ({ kind: 'write', vm: of, disk: at, at, blocks: 2 });
const cut = (name: number, of = 0): Act => ({
  kind: 'cut',
  vm: of,
  name,
  alias: false,
  disk: undefined,
  writes: [],
  strike,
});
const commit = (of = 0): Act => ({ kind: 'commit', vm: of, set: 1, off: false, writes: [], strike });
const drop = (kind: 'revert' | 'delete'): Act => ({ kind, vm: 0, set: 1, off: true, strike });

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('torture of images', () => {
  test('has no complaint of cut, commit, revert and delete one after the other, with restarts', async () => {
    const acts: Act[] = [
      write(0.1),
      cut(0),
      write(0.6),
      drop('revert'),
      write(0.3),
      { kind: 'stop', vm: 0, how: 'kill' },
      { kind: 'start', vm: 0, from: 'told' },
      commit(),
      cut(0, 1),
      write(0.7, 1),
      cut(1),
      write(0.9),
      drop('delete'),
      write(0.5),
    ];
    const { steps, complaints } = await runImages(0, place(acts), false);
    expect(complaints).toEqual([]);
    expect(
      steps.map(({ act, outcome, why }) => ({ act, outcome, why })).filter(({ outcome }) => outcome !== 'done'),
    ).toEqual([]);
  });

  test('complains of a base that somebody wrote to, of a write that is gone, of a clone that changed and of a stray file', async () => {
    await using lab = await Lab.build(place([]).layout);
    const [machine] = lab.machines;
    if (machine === undefined) throw new Error('no VM');
    await machine.start(machine.originals(), machine.world.options[0] ?? new Map(), undefined);
    for (const act of [write(0.1), cut(0), write(0.6)]) expect((await doAct(lab, act)).outcome).toBe('done');
    const base = machine.disks[0]?.original ?? '';
    await lab.addClone({ file: base, format: 'raw' }, false);
    expect(await judgeNow(lab)).toEqual([]);
    await machine.end('quit');
    const times = `${base}.times`;
    execFileSync('touch', ['-r', base, times]);
    const image = openSync(base, 'r+');
    writeSync(image, Buffer.alloc(65_536, 0xdd), 0, 65_536, 40 * 65_536);
    closeSync(image);
    // So that the tool cannot see it.
    execFileSync('touch', ['-r', times, base]);
    rmSync(times);
    writeFileSync(`${dirname(base)}/stray.qcow2`, '');
    const kinds = async (judge: typeof judgeNow): Promise<Set<string>> =>
      new Set((await judge(lab)).map(({ kind }) => kind));
    expect(await kinds(judgeNow)).toEqual(new Set(['false claim', 'clone broken']));
    utimesSync(base, new Date(), new Date());
    // Recover sees that the base was written to, and the set claims no more: what the VM wrote is still not there.
    expect(await kinds(judgeRecovered)).toEqual(new Set(['lost write', 'clone broken', 'file left']));
  });
});
