// The one error that is told of a cut that failed.
import { afterEach, beforeEach, expect, test } from 'vitest';
import { CutError, QuiesceError, ThawUnconfirmedError } from '../../../../src/errors.js';
import { undoCreate } from '../../../../src/host/create/create-undo.js';
import { ManifestStore } from '../../../../src/host/sets/manifest-store.js';
import { Reverter } from '../../../../src/reverter.js';
import { manifest } from '../../../support/manifests.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

const never = new AbortController().signal;
const unconfirmed = new ThawUnconfirmedError('E_THAW_UNCONFIRMED', 'look at it NOW');

let folder: Scratch;
let store: ManifestStore;
beforeEach(() => {
  folder = scratch();
  store = new ManifestStore(folder.dir, 'vm1');
});
afterEach(() => {
  folder[Symbol.dispose]();
});

function failing(cause: unknown): Reverter {
  const reverter = new Reverter();
  reverter.push('the freeze of the guest', () => Promise.reject(cause instanceof Error ? cause : new Error('no')));
  return reverter;
}

test('is the unconfirmed thaw of the undo, though the manifest cannot be written', async () => {
  // Its folder was never made.
  const error = await undoCreate(failing(unconfirmed), store, manifest('s1'), never, new CutError('E_CUT', 'no'));
  expect(error).toBeInstanceOf(ThawUnconfirmedError);
  expect(String((error as Error).cause)).toContain('the manifest of s1 could not be written');
});

test('is the unconfirmed thaw that was met first, though the undo fails, too', async () => {
  expect(await undoCreate(failing('no'), store, manifest('s1'), never, unconfirmed)).toBeInstanceOf(
    ThawUnconfirmedError,
  );
});

test('is a CutError if only the undo failed', async () => {
  const error = await undoCreate(failing('no'), store, manifest('s1'), never, new CutError('E_CUT', 'no'));
  expect(error).toBeInstanceOf(CutError);
  expect(error).toMatchObject({ code: 'E_UNDO' });
});

test('is the interruption, once everything is undone', async () => {
  await store.claim('s1', '');
  const error = await undoCreate(new Reverter(), store, manifest('s1'), AbortSignal.abort('SIGTERM'), new Error('x'));
  expect(error).toBeInstanceOf(QuiesceError);
  expect(await store.names()).toEqual([]);
});
