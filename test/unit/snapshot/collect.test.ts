import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { collect } from '../../../src/snapshot/collect.js';
import { Journal, processNote, type RunRecord } from '../../../src/snapshot/journal.js';
import { thisMaker } from '../../../src/snapshot/maker.js';
import type { Run } from '../../../src/snapshot/program.js';
import { fakeProvider } from '../../support/fake-provider.js';
import { scratch, type Scratch } from '../../support/scratch.js';

let folder: Scratch;
let journal: Journal;
beforeEach(() => {
  folder = scratch();
  mkdirSync(folder.path('runs'));
  journal = new Journal(folder.path('runs'));
});
afterEach(() => {
  folder[Symbol.dispose]();
});

/** Nothing is a mount point but what is asked for here; each unmount works. */
function machine(mounted: string[] = []) {
  const calls: string[] = [];
  const run: Run = async (words) => {
    calls.push(words.join(' '));
    const [program, ...rest] = words;
    const at = rest.at(-1) ?? '';
    if (program === 'umount') mounted.splice(mounted.indexOf(at), 1);
    const exitCode = program === 'mountpoint' && !mounted.includes(at) ? 1 : 0;
    return await Promise.resolve({ exitCode, stdout: '', stderr: '' });
  };
  return { run, calls };
}

const dead = { pid: 2 ** 22 - 1, startTime: '1' };
const record = (run: string, over: Partial<RunRecord> = {}): RunRecord => ({
  run,
  kind: 'tree',
  state: 'held',
  isDetached: false,
  holder: dead,
  begun: '2026-01-01T00:00:00.000Z',
  paths: ['/srv'],
  evidence: [],
  sources: [],
  snapshots: [],
  mounts: [],
  ...over,
});

describe('gc', () => {
  test('removes what dead runs left, mounts first, and what has no notes any more', async () => {
    const provider = fakeProvider('lvm');
    provider.there = [
      { run: 'r1', name: 'vg/one' },
      { run: 'after-a-reboot', name: 'vg/two', maker: { ...thisMaker(), boot: 'earlier' } },
    ];
    journal.begin(record('r1', { mounts: ['/mnt', '/mnt/srv'] }));
    const { run, calls } = machine(['/mnt', '/mnt/srv']);
    expect(await collect(journal, [provider], run)).toMatchObject({ removed: ['vg/one', 'vg/two'], left: [] });
    expect(calls.filter((call) => call.startsWith('umount'))).toEqual(['umount /mnt/srv', 'umount /mnt']);
    expect(journal.runs()).toEqual([]);
  });

  test('touches nothing of a run that is held', async () => {
    const provider = fakeProvider('lvm');
    provider.there = [{ run: 'r1', name: 'vg/one' }];
    journal.begin(record('r1', { holder: processNote(process.pid), mounts: ['/mnt'] }));
    const { run, calls } = machine(['/mnt']);
    expect(await collect(journal, [provider], run)).toMatchObject({ removed: [], left: [] });
    expect([calls, provider.calls, journal.runs()]).toEqual([[], [], ['r1']]);
  });

  test('leaves to whoever merges it what is being reverted, but for its name', async () => {
    const provider = fakeProvider('lvm');
    provider.there = [{ run: 'r1', name: 'vg/one' }];
    journal.begin(record('r1', { state: 'reverting' }));
    expect(await collect(journal, [provider], machine().run)).toMatchObject({ removed: [], left: [] });
    expect(await collect(journal, [provider], machine().run, 'r1')).toMatchObject({ removed: ['vg/one'], left: [] });
  });

  test('leaves what another machine made, or a run that is noted elsewhere, and says so', async () => {
    const provider = fakeProvider('lvm');
    provider.there = [
      { run: 'guest', name: 'vg/one', maker: { machine: 'f'.repeat(32), boot: 'x' } },
      { run: 'unmarked', name: 'vg/two', maker: {} },
      { run: 'container', name: 'vg/three', maker: thisMaker() },
    ];
    const { removed, left, others } = await collect(journal, [provider], machine().run);
    expect({ removed, left, calls: provider.calls }).toEqual({ removed: [], left: [], calls: [] });
    expect(others).toEqual([
      { what: 'vg/one', reason: expect.stringMatching(/^it was made by machine f+, and this is/) as string },
      { what: 'vg/two', reason: expect.stringMatching(/^it was made by machine unknown/) as string },
      { what: 'vg/three', reason: expect.stringMatching(/by a run that is noted elsewhere/) as string },
    ]);
    // Whoever names it means it.
    expect((await collect(journal, [provider], machine().run, 'container')).removed).toEqual(['vg/three']);
    expect((await collect(journal, [provider], machine().run, 'guest')).removed).toEqual([]);
  });

  test('leaves a run whose notes it cannot read, and what a provider made that is not there any more', async () => {
    const provider = fakeProvider('lvm');
    provider.there = [{ run: 'r1', name: 'vg/one' }];
    journal.begin(record('r1'));
    writeFileSync(folder.path('runs/r1/journal.json'), '{"version":2}');
    journal.begin(record('r2', { snapshots: [{ provider: 'gone', name: 'two', of: '/srv' }] }));
    const { removed, left } = await collect(journal, [provider], machine().run);
    expect(removed).toEqual([]);
    expect(left).toEqual([
      { what: 'run r1', reason: expect.stringContaining('its notes cannot be read') as string },
      { what: 'two', reason: 'expected the provider gone, which made it, found none of that name' },
    ]);
    expect(journal.runs()).toEqual(['r1', 'r2']);
  });

  test('keeps of a run that was let go by name that it was lost, until somebody was told', async () => {
    const provider = fakeProvider('lvm');
    provider.there = [{ run: 'r1', name: 'vg/one' }];
    journal.begin(record('r1', { isDetached: true, lost: 'its room was used up', mounts: ['/mnt'] }));
    journal.begin(record('r2', { lost: 'told by its own exit code' }));
    for (const removed of [['vg/one'], []])
      expect(await collect(journal, [provider], machine().run)).toEqual({
        removed,
        left: [],
        others: [],
        lost: [{ run: 'r1', reason: 'its room was used up' }],
      });
    expect(journal.read('r1')).toMatchObject({ state: 'lost', mounts: [] });
    expect(journal.runs()).toEqual(['r1']);
  });

  test('tells what stays, and keeps its notes', async () => {
    const provider = fakeProvider('lvm');
    provider.there = [{ run: 'r1', name: 'vg/one' }];
    provider.stuck = 'vg/one';
    journal.begin(record('r1'));
    const { left } = await collect(journal, [provider], machine().run);
    expect(left).toEqual([{ what: 'vg/one', reason: 'in use' }]);
    expect(journal.runs()).toEqual(['r1']);
  });

  test('asks a provider that cannot list by the notes of the run, and does one run alone if told so', async () => {
    const provider = fakeProvider('program', { listsAll: false });
    for (const name of ['r1', 'r2'])
      journal.begin(record(name, { snapshots: [{ provider: 'program', name: `of ${name}`, of: '/srv' }] }));
    const { removed } = await collect(journal, [provider], machine().run, 'r2');
    expect(removed).toEqual(['of r2']);
    expect(journal.runs()).toEqual(['r1']);
  });

  test('ends the command of a holder that died', async () => {
    const child = spawn('/bin/sleep', ['1000'], { stdio: 'ignore' });
    const ended = once(child, 'exit');
    journal.begin(record('r1', { command: processNote(child.pid ?? 0) }));
    await collect(journal, [], machine().run);
    expect(await ended).toEqual([null, 'SIGTERM']);
  });
});

test('notes that are no notes are as good as none', () => {
  mkdirSync(folder.path('runs/odd'));
  expect(journal.read('odd')).toBeUndefined();
  journal.begin(record('r1'));
  journal.update(record('r1', { state: 'ending' }));
  expect(journal.read('r1')).toEqual(record('r1', { state: 'ending' }));
});
