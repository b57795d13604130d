// The last word to the guest about a set that is recorded: what it is told, what of that is recorded, and that nothing
// which goes wrong here takes anything from the set.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { CompleteOutcome, Completion } from '../../../../src/consistency.js';
import { ThawUnconfirmedError } from '../../../../src/errors.js';
import type { HeldCut } from '../../../../src/host/create/held-cut.js';
import { tellGuest } from '../../../../src/host/create/tell-guest.js';
import { ManifestStore } from '../../../../src/host/sets/manifest-store.js';
import { freezeReport } from '../../../support/freeze-reports.js';
import { manifest } from '../../../support/manifests.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

let folder: Scratch;
let store: ManifestStore;
beforeEach(async () => {
  folder = scratch();
  store = new ManifestStore(folder.dir, 'vm1');
  await store.claim('s1', '');
  await store.write(set);
});
afterEach(() => {
  folder[Symbol.dispose]();
});

const set = manifest('s1');
const report = freezeReport({ session: 'f1' });
const held: HeldCut = { report, doubt: undefined, thawError: undefined };
const writer = { name: 'w', path: '/w', told: 'ok', result: 'done', durationMs: 5 } as const;

const tell = async (
  answer: () => Promise<Completion | undefined>,
  { cut = held, satisfied = true, to = store } = {},
) => {
  const asked: [string, CompleteOutcome][] = [];
  const coordinator = {
    complete: (session: string, outcome: CompleteOutcome) => {
      asked.push([session, outcome]);
      return answer();
    },
  };
  const { signal } = new AbortController();
  return { asked, told: await tellGuest(to, set, { coordinator, held: cut, satisfied, signal }) };
};
const answers = (): Promise<Completion> => Promise.resolve({ session: 'f1', outcome: 'ok', writers: [writer] });

test('a set as good as it was asked for is told of as ok, and the answer is recorded', async () => {
  const { asked, told } = await tell(answers);
  expect(asked).toEqual([['f1', 'ok']]);
  expect(told.completion).toEqual({ outcome: 'ok', writers: [writer] });
  expect((await store.read('s1')).completion).toEqual(told.completion);
});

describe('nobody is told ok', () => {
  test('of a set below the level asked for', async () => {
    expect((await tell(answers, { satisfied: false })).asked).toEqual([['f1', 'failed']]);
  });

  test('of a report that is no evidence', async () => {
    const cut = { ...held, doubt: 'when the disks were cut is not known' };
    expect((await tell(answers, { cut })).asked).toEqual([['f1', 'failed']]);
  });
});

describe('the set stays as it is', () => {
  test('where the guest was not held', async () => {
    const thawError = new ThawUnconfirmedError('E_THAW', 'no');
    const { asked, told } = await tell(answers, { cut: { report: undefined, doubt: 'no agent', thawError } });
    expect(asked).toEqual([]);
    expect(told).toBe(set);
  });

  test('where the agent has no such command', async () => {
    const { told } = await tell(() => Promise.resolve(undefined));
    expect(told).toBe(set);
    expect(await store.read('s1')).not.toHaveProperty('completion');
  });
});

describe('a failure is recorded and fails nothing', () => {
  test('of the agent', async () => {
    const { told } = await tell(() => Promise.reject(new Error('no session f1')));
    expect(told).toMatchObject({
      state: 'cut',
      completion: { outcome: 'ok', writers: [], error: 'telling the guest failed: no session f1' },
    });
    expect((await store.read('s1')).completion).toEqual(told.completion);
  });

  test('of an answer without end', async () => {
    const reason = 'x'.repeat(2_000_000);
    const { told } = await tell(async () => ({ ...(await answers()), writers: [{ ...writer, reason }] }));
    expect(told.completion?.writers).toEqual([]);
    expect(told.completion?.error).toContain('expected at most 1048576');
  });

  test('of the record', async () => {
    const nowhere = new ManifestStore(folder.path('not-there'), 'vm1');
    const { told } = await tell(answers, { to: nowhere });
    expect(told.completion?.writers).toEqual([writer]);
    expect(told.completion?.error).toContain('the manifest of s1 could not be written');
  });
});
