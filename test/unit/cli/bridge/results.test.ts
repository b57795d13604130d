// What --json prints: schemas that are no wider than what is printed, and the page that users read of them.
import * as v from 'valibot';
import { describe, expect, test } from 'vitest';
import { Output } from '../../../../src/cli/bridge/output.js';
import { declaredCommands } from '../../../../src/cli/bridge/declared-commands.js';
import { resultSchemas, type Result, type ResultName } from '../../../../src/cli/bridge/results/results.js';
import { QuiesceError } from '../../../../src/errors.js';
import type { CopyRecord } from '../../../../src/host/copy/copy-record.js';
import type { CreateCheck } from '../../../../src/host/create/create-check.js';
import type { BackupDryRun } from '../../../../src/host/backup/backup-dry-run.js';
import type { Finding } from '../../../../src/host/recover/finding.js';
import type { ForgottenRuns } from '../../../../src/host/repository/keep-house.js';
import type { RunView, StoredRuns } from '../../../../src/host/repository/look.js';
import type { RunManifest } from '../../../../src/host/repository/run-manifest.js';
import type { RestoredRun } from '../../../../src/host/restore/restore-run.js';
import type { CurrentImage } from '../../../../src/host/sets/current-images.js';
import type { OverlaySize } from '../../../../src/host/sets/overlay-sizes.js';
import { manifestSchema } from '../../../../src/host/sets/manifest.js';
import type { DiskView } from '../../../../src/host/sets/set-view.js';
import type { Deleted } from '../../../../src/host/snapshot-delete.js';
import type { VmStatus } from '../../../../src/host/vm-status.js';
import type { ShownVm } from '../../../../src/host/vm/vm.js';
import type { OverlayLook, WatchEvent } from '../../../../src/host/watch/overlay-watch.js';
import { checkResult, readResult, resultOf } from '../../../support/bridge-result.js';
import { filesystemReport, freezeReport } from '../../../support/freeze-reports.js';
import { manifest } from '../../../support/manifests.js';
import { resultsPage } from '../../../support/results-page.js';

/** Every member at any depth, as a path. */
type Paths<T> = T extends readonly (infer Item)[]
  ? Paths<Item>
  : T extends object
    ? { [K in keyof T & string]: K | `${K}.${Paths<T[K]>}` }[keyof T & string]
    : never;
type Same<A, B> = [Exclude<Paths<A>, Paths<B>>, Exclude<Paths<B>, Paths<A>>] extends [never, never] ? true : false;
type Item<N extends ResultName, K extends keyof Result<N>> = Result<N>[K] extends readonly (infer I)[] ? I : never;

// What a spread brings along is checked here: `satisfies` sees only what is written out.
const sameMembers: Record<string, true> = {
  status: true satisfies Same<Result<'status'>, Omit<VmStatus, 'vm'> & { readonly vm: ShownVm }>,
  check: true satisfies Same<Omit<Result<'snapshot create --check'>, 'exitCode'>, CreateCheck>,
  copy: true satisfies Same<Omit<Result<'snapshot copy'>, 'target'>, CopyRecord>,
  delete: true satisfies Same<Omit<Result<'snapshot delete'>, 'deleted'>, Deleted>,
  finding: true satisfies Same<Item<'recover', 'findings'>, Finding>,
  image: true satisfies Same<Item<'snapshot start-args', 'disks'>, CurrentImage>,
  look: true satisfies Same<Omit<Result<'snapshot watch --once'>, 'limitBytes'>, OverlayLook>,
  overlay: true satisfies Same<Item<'snapshot watch --once', 'overlays'>, OverlaySize>,
  event: true satisfies Same<Result<'snapshot watch'>, WatchEvent>,
  view: true satisfies Same<Item<'snapshot show', 'disks'>, DiskView & Item<'snapshot create', 'disks'>>,
  run: true satisfies Same<
    Omit<Result<'backup run'>, 'exitCode' | 'satisfied' | 'path' | 'troubles' | 'hints' | 'completion'>,
    RunManifest
  >,
  dryRun: true satisfies Same<Omit<Result<'backup run --dry-run'>, 'exitCode'>, BackupDryRun>,
  stored: true satisfies Same<Item<'backup list', 'vms'>, StoredRuns>,
  runView: true satisfies Same<Result<'backup show'>, RunView & RunManifest>,
  restored: true satisfies Same<Result<'backup restore'>, RestoredRun>,
  forgotten: true satisfies Same<Item<'backup forget', 'vms'>, ForgottenRuns>,
  manifest: true satisfies Same<Result<'snapshot revert'>, v.InferOutput<typeof manifestSchema>>,
};

const whole = {
  ...manifest('s1'),
  guest: freezeReport({ filesystems: [filesystemReport('/data', 'D')] }),
  disks: manifest('s1').disks.map((disk) => ({
    ...disk,
    base: { ...disk.base, asCut: { device: '1', inode: '2', size: 3, mtimeMs: 4 } },
  })),
};

describe('schemas', () => {
  test('there is one for each command, and none besides', () => {
    const commands = new Set(Object.keys(resultSchemas).map((name) => name.replace(/ --[\w-]+$/, '')));
    expect([...commands].sort()).toEqual(
      declaredCommands()
        .map(({ line }) => line.replace(/ [<[].*$/, ''))
        .sort(),
    );
    expect(Object.values(sameMembers)).not.toContain(false);
  });

  test.each<[string, readonly string[], unknown]>([
    ['snapshot create', ['snapshot', 'create'], { exitCode: 0, satisfied: true, notes: [], ...whole }],
    ['snapshot commit', ['snapshot', 'commit', 's1'], { ...whole, foreign: [] }],
    ['snapshot revert', ['--vm', 'x', 'snapshot', 'revert', 's1'], whole],
    ['snapshot delete', ['snapshot', 'delete', 's1'], { deleted: 's1', files: ['/img/a.s1'], foreign: [] }],
    ['snapshot prune', ['snapshot', 'prune'], { dryRun: true, merged: ['s1'], forgotten: [], kept: ['s2'] }],
    ['thaw', ['thaw', '--vm', 'x'], { thawed: true, wasFrozen: false }],
    ['wait', ['wait'], { kind: 'stock', version: '7.2' }],
  ])('%s reads what is printed, and refuses what is not declared', (name, words, value) => {
    const line = JSON.stringify(value);
    expect(resultOf(words)).toBe(name);
    expect(readResult(words, `first\n${line}\n`)).toEqual(JSON.parse(line));
    expect(() => readResult(words, JSON.stringify({ ...(value as object), more: 1 }))).toThrow(
      /is not as its schema says: more/,
    );
  });

  test('a manifest that is stored is one that is printed', () => {
    expect(v.is(manifestSchema, whole)).toBe(true);
    expect(() => {
      checkResult('snapshot revert', whole);
    }).not.toThrow();
  });

  test('a failure is told as its schema says, with a code that is listed', () => {
    let stdout = '';
    const output = new Output({ stdout: (text) => (stdout += text), stderr: () => undefined }, true);
    output.failure(new QuiesceError('E_BELOW_REQUIRED', 'no', { facts: { reached: 'crash' } }));
    expect(readResult(['snapshot', 'create'], stdout)).toMatchObject({ error: { code: 'E_BELOW_REQUIRED' } });
    output.failure(new TypeError('bug'));
    expect(readResult(['status'], stdout)).toMatchObject({ error: { code: 'E_INTERNAL', exitCode: 1 } });
    expect(() => readResult(['status'], stdout.replace('E_INTERNAL', 'E_OTHER'))).toThrow(/code/);
  });
});

test('RESULTS.md says what the schemas say', async () => {
  const page = resultsPage();
  // Each member has a meaning.
  expect(page.split('\n').filter((line) => /^ *- `\w+` \(/.test(line) && !/\): \S/.test(line))).toEqual([]);
  await expect(page).toMatchFileSnapshot('../../../../src/cli/bridge/RESULTS.md');
});
