// Who is at a set: one process at a time, told apart from a dead one of the same number.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { execa } from 'execa';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Journal, readJournal, refuseBusy, type JournalEntry } from '../../../../src/host/sets/journal.js';
import { ManifestStore } from '../../../../src/host/sets/manifest-store.js';
import { ownerState, thisProcess, type Owner } from '../../../../src/host/sets/owner.js';
import { manifest } from '../../../support/manifests.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

let folder: Scratch;
let store: ManifestStore;
let file: string;
beforeEach(async () => {
  folder = scratch();
  store = new ManifestStore(folder.dir, 'vm1');
  file = store.journalFile('s1');
  await store.claim('s1', '');
  await store.write(manifest('s1'));
  await (await Journal.begin(store, 's1', 'commit')).end();
});
afterEach(() => {
  folder[Symbol.dispose]();
});

const hold = { session: 'x', qga: '/q', leaseMs: 10, since: 'then' };
const write = async (owner: Partial<Owner>, members: Partial<JournalEntry> = {}): Promise<void> => {
  const entry = { format: 1, operation: 'create', since: 'then', owner: { ...(await thisProcess()), ...owner } };
  writeFileSync(file, JSON.stringify({ ...entry, ...members }));
};

describe('the owner of a journal', () => {
  test.each([
    ['this process', {}, 'alive'],
    ['a later process of the same number', { startTicks: '1' }, 'gone'],
    ['one of another boot', { bootId: 'before' }, 'gone'],
    ['one that ended', { pid: 4_194_304 }, 'gone'],
    ['one of another container', { pidNamespace: 'pid:[1]' }, 'elsewhere'],
  ] as const)('%s', async (_who, members, state) => {
    expect(await ownerState({ ...(await thisProcess()), ...members })).toBe(state);
  });

  test('a zombie is gone', async () => {
    // Its parent does not wait for it.
    const parent = execa('sh', ['-c', 'sleep 0.1 & echo $!; exec sleep 5'], { reject: false });
    const text = await new Promise<string>((resolve) =>
      parent.stdout.once('data', (data: Buffer) => {
        resolve(data.toString());
      }),
    );
    const pid = Number(text.trim());
    const stat = (): string[] => readFileSync(`/proc/${pid}/stat`, 'utf8').split(' ');
    const startTicks = stat()[21] ?? '';
    while (stat()[2] !== 'Z') await new Promise((resolve) => setTimeout(resolve, 20));
    expect(await ownerState({ ...(await thisProcess()), pid, startTicks })).toBe('gone');
    parent.kill('SIGKILL');
    await parent;
  });
});

describe('Journal', () => {
  test('takes the place of one whose owner is gone, or that is none', async () => {
    await write({ startTicks: '1' });
    await (await Journal.begin(store, 's1', 'delete')).end();
    writeFileSync(file, '{');
    await (await Journal.begin(store, 's1', 'delete')).end();
    expect(existsSync(file)).toBe(false);
  });

  test('does not forget a guest that a killed owner held', async () => {
    await write({ startTicks: '1' }, { hold });
    await (await Journal.begin(store, 's1', 'commit')).end();
    expect(await readJournal(file)).toMatchObject({ owner: 'gone', entry: { operation: 'create', hold } });
  });

  test('keeps in mind a guest that nobody confirmed, without looking busy', async () => {
    const journal = await Journal.begin(store, 's1', 'create');
    await journal.holds(hold);
    expect(await readJournal(file)).toMatchObject({ owner: 'alive' });
    await journal.end({ keepHold: true });
    expect(await readJournal(file)).toMatchObject({ owner: 'gone', entry: { hold } });
  });

  test('refuses others while a process of another container may be at it, and says which file to remove', async () => {
    await write({ pidNamespace: 'pid:[1]', pid: process.pid + 1 });
    await expect(refuseBusy(store, 's1')).rejects.toThrow(`of another container; if it has ended, remove ${file}`);
    await expect(Journal.begin(store, 's1', 'commit')).rejects.toMatchObject({ code: 'E_SET_BUSY' });
  });
});

test('a name is taken with its journal in it', async () => {
  const journal = await Journal.claim(store, 's2');
  expect(await readJournal(store.journalFile('s2'))).toMatchObject({ owner: 'alive', entry: { operation: 'create' } });
  await expect(Journal.claim(store, 's2')).rejects.toMatchObject({ code: 'E_NAME_TAKEN' });
  expect(await store.names()).toEqual(['s1', 's2']);
  await journal.end();
});
