// `torture -- backup` in small: a sequence with every kind of act holds, and the judge sees what it is there to see. Long
// runs are `npm run torture -- backup`.
import { chmodSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { execa } from 'execa';
import { expect, test } from 'vitest';
import type { Act, DrawnWrite, Strike } from '../torture/backup/act.js';
import { doAct } from '../torture/backup/acts.js';
import type { BackupDraw } from '../torture/backup/draw.js';
import { Place } from '../torture/backup/place.js';
import { runBackups } from '../torture/backup/run.js';
import { judgeRest, judgeRuns, judgeVm } from '../torture/backup/verdict.js';
import { requires } from '../support/requires.js';

const one = (disk: number, at: number, what: DrawnWrite['what'] = 'bytes'): DrawnWrite => ({
  disk,
  at,
  kilobytes: 300,
  what,
});
const write = (...writes: readonly DrawnWrite[]): Act => ({ kind: 'write', writes });
const backup = (strike?: Strike, writes: readonly DrawnWrite[] = [], off = false): Act => ({
  kind: 'backup',
  words: writes.length > 0 ? ['--limit', '8'] : [],
  disk: undefined,
  off,
  writes,
  strike,
});
const drawn = (acts: readonly Act[]): BackupDraw => ({ formats: ['raw', 'qcow2'], acts, isEncrypted: false });

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'qemu-io',
)('torture of backups', () => {
  test('has no complaint of a sequence with every act', async () => {
    const acts: Act[] = [
      write(one(0, 0.1), one(1, 0.5)),
      backup(undefined, [one(0, 0.1), one(1, 0.5)]),
      write(one(1, 0.5, 'discard'), one(0, 0.1, 'zeroes'), one(0, 0.8), one(1, 0.8)),
      { kind: 'snapshot' },
      backup({ ending: 'tool killed', at: 0.6, laterMs: undefined }),
      write(one(0, 0.2), one(1, 0.9)),
      backup(),
      { kind: 'revert' },
      backup({ ending: 'job cancelled', at: 0.6, laterMs: undefined }),
      { kind: 'commit' },
      { kind: 'plug' },
      { kind: 'resize', disk: 0.9 },
      backup({ ending: 'guest refuses', at: 0, laterMs: undefined }),
      { kind: 'bitmap' },
      backup(undefined, [], true),
      { kind: 'unplug' },
      backup({ ending: 'QEMU killed', at: 0.6, laterMs: undefined }),
      write(one(0, 0.3)),
      backup(),
      { kind: 'damage', run: 0.9, disk: 0.9, at: 0.5 },
      { kind: 'verify' },
      { kind: 'forget', run: 0 },
      { kind: 'restore', run: 0 },
      { kind: 'put back', run: 0, killedAfterMs: 900 },
      { kind: 'start' },
      { kind: 'stop', how: 'kill' },
      { kind: 'recover' },
      { kind: 'start' },
    ];
    const { steps, complaints, compared, full, incremental } = await runBackups(0, drawn(acts), false);
    expect(complaints).toEqual([]);
    expect(steps).toHaveLength(acts.length);
    expect(steps.filter(({ outcome }) => outcome === 'idle')).toEqual([]);
    for (const count of [compared, full, incremental]) expect(count).toBeGreaterThan(1);
  }, 300_000);

  test('complains of a wrong byte, of a run that is gone, of damage that nobody did, and of a write that is lost', async () => {
    await using place = await Place.build(drawn([]));
    for (const act of [write(one(0, 0.1), one(1, 0.5)), backup(), write(one(1, 0.7)), backup(), backup()])
      expect((await doAct(place, act, () => 7)).outcome).toBe('done');
    expect(await judgeRuns(place)).toEqual([]);
    const [first = '', second = '', third = ''] = place.seen;
    // What the guest is said to have had at the cut: one byte is another.
    const state = new Map(place.vm.states.get(second));
    const bytes = Buffer.from(state.get('disk1') ?? '');
    bytes[4_000_000] = (bytes[4_000_000] ?? 0) ^ 1;
    place.vm.states.set(second, state.set('disk1', bytes));
    rmSync(place.vm.stored(third), { recursive: true });
    expect(await judgeRuns(place)).toMatchObject([
      { kind: 'run lost', text: expect.stringContaining(third) as string },
      { kind: 'wrong restore', text: expect.stringContaining('byte 4000000') as string },
      { kind: 'wrong restore', text: expect.stringContaining('by hand') as string },
    ]);
    const file = place.vm.stored(first, 'disk0.qcow2');
    chmodSync(file, 0o600);
    writeFileSync(file, Buffer.concat([readFileSync(file), Buffer.alloc(1)]));
    expect((await judgeRuns(place)).filter(({ kind }) => kind === 'good run refused')).toHaveLength(3);
    place.harmed.add(first);
    expect((await judgeRuns(place)).map(({ kind }) => kind)).toEqual(['run lost']);
    expect(await judgeRest(place)).toEqual([]);
    const [image] = await place.images();
    await place.stop('quit');
    await execa('qemu-io', ['-f', 'raw', '-c', 'write -P 99 1000k 4k', image?.file ?? '']);
    expect(await judgeVm(place)).toMatchObject([
      { kind: 'lost write', text: expect.stringContaining('byte 1024000 is 99') as string },
    ]);
  }, 300_000);
});
