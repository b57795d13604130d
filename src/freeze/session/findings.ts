// What a session has found out so far, and the verdict and the report made of that: the plan, what was left out of it
// and why, what changed since, and what became of filesystems and writers. The steps: attempt.ts, finish.ts.
import { defined } from '../../defined.js';
import type { Artefact, FreezeReport, FreezeRequest } from '../../consistency.js';
import { UsageError } from '../../errors.js';
import { UnmountedDisks } from '../judgement/unmounted-disks.js';
import type { Change } from '../judgement/changes.js';
import { FilesystemSet } from './filesystem-set.js';
import {
  concernedWriters,
  cutsApart,
  makePlan,
  tornFilesystems,
  uncoveredOf,
  type Uncovered,
} from '../judgement/plan.js';
import { buildReport, type StepClock } from '../judgement/report.js';
import { checkLevel, levelNeeded, type UnsafeWriter } from '../judgement/requirement.js';
import { SecondLook } from '../judgement/second-look.js';
import type { Outcome } from './ending.js';
import type { Settings } from '../settings.js';
import { judge, type Verdict } from '../judgement/verdict.js';
import { asApart, findWriters, type Writer } from '../writers/folders.js';
import type { WriterSet } from '../writers/writer-set.js';

interface Head {
  readonly id: string;
  readonly request: FreezeRequest;
  /** As given, which may be less than was asked for. */
  readonly leaseMs: number;
  readonly clock: StepClock;
}

export class SessionFindings {
  readonly #settings: Settings;
  readonly #head: Head;
  readonly #outcome: Outcome;
  #filesystems: FilesystemSet | undefined;
  #unmounted: UnmountedDisks | undefined;
  #secondLook: SecondLook | undefined;
  #skipped: FreezeReport['skipped'] = [];
  #unsafeWriters: readonly UnsafeWriter[] = [];
  #uncovered: readonly Uncovered[] = [];
  #artefacts: Artefact[] = [];
  /** Set in step 1, as soon as they are known. */
  writers: WriterSet | undefined;

  constructor(settings: Settings, head: Head, outcome: Outcome) {
    this.#settings = settings;
    this.#head = head;
    this.#outcome = outcome;
  }

  /**
   * Step 1: makes the plan, its filesystems and the writers concerned. Throws a UsageError for a mount point at which
   * nothing is mounted, and for one that is left to a provider and not asked for, or could not be held by it.
   */
  async plan(): Promise<{ readonly filesystems: FilesystemSet; readonly concerned: readonly Writer[] }> {
    const settings = this.#settings;
    const { request, clock } = this.#head;
    const view = await settings.view();
    const plan = makePlan(view.table, view.lookup, request, settings.rules);
    const [unknown] = plan.unknownMountpoints;
    // qemu-ga passes over mount points it does not find.
    if (unknown !== undefined && request.require !== 'plain')
      throw new UsageError('E_MOUNTPOINT', `mount points: expected paths of the mount table, found ${unknown}`);
    const [notLeft] = plan.notLeft;
    if (notLeft !== undefined)
      throw new UsageError('E_MOUNTPOINT', `leave: expected mount points among those asked for, found ${notLeft}`);
    const [stuck] = plan.leftOnFrozen;
    if (stuck !== undefined)
      throw new UsageError(
        'E_MOUNTPOINT',
        `leave: expected filesystems whose provider can write, found ${stuck.what}, which lies in a file on ${stuck.under}: leave that one, too, or neither`,
      );

    // It looks at the writers' files before these are read: what changes in between shows as a change.
    this.#secondLook = new SecondLook(settings, request, view, plan);
    const found = findWriters(settings.writerFolders, { owner: settings.writerOwner });
    const { concerned, skipped } = concernedWriters(found, view.table, plan);
    const writers = cutsApart(plan) ? concerned.map((writer) => asApart(writer)) : concerned;
    this.#uncovered = uncoveredOf(concerned, view.table, plan);
    const unknownSkipped = plan.unknownMountpoints.map((what) => ({ what, reason: 'nothing is mounted there' }));
    this.#skipped = [...plan.skipped, ...unknownSkipped, ...skipped];
    this.#unsafeWriters = found.flatMap(({ path, problem, problemKind, required, shipped = false }) =>
      problem !== undefined && problemKind === 'unsafe' ? [{ what: path, reason: problem, required, shipped }] : [],
    );
    this.#unmounted = new UnmountedDisks(plan, settings);
    const filesystems = new FilesystemSet(plan, settings.sysRoot, clock.zeroMs);
    this.#filesystems = filesystems;
    return { filesystems, concerned: writers };
  }

  /** Writers that should run, and may not be run. */
  get unsafeWriters(): readonly UnsafeWriter[] {
    return this.#unsafeWriters;
  }

  /**
   * After the last sync: notes what must stand still from now on, and looks for what is no longer as it was planned.
   */
  async synced(): Promise<void> {
    this.#unmounted?.start();
    await this.#secondLook?.atFilesystems('changes');
  }

  /** Before the first FIFREEZE: looks for what is no longer as it was planned, as far as that is quickly seen. */
  async lookAgain(): Promise<void> {
    await this.#secondLook?.atFilesystems('held');
    const changed = this.#secondLook?.atWriters() ?? [];
    this.#unsafeWriters = [...this.#unsafeWriters, ...changed.map((change) => ({ ...change, required: true }))];
  }

  /** After the last FITHAW: counts what was written meanwhile. */
  thawed(): void {
    this.#filesystems?.finish();
    this.#unmounted?.finish();
  }

  /** After the release: the last look at the mounts, and what writers left. Nobody waits for it but the requester. */
  async released(): Promise<void> {
    if (this.#outcome.kind === 'ok') await this.#secondLook?.atFilesystems('changes');
    // Where nothing was cut, or something may still be frozen, nobody needs them.
    if (this.#outcome.kind !== 'failed' && this.#outcome.unconfirmed === undefined)
      this.#artefacts = this.writers?.artefacts() ?? [];
  }

  /**
   * Throws a QuiesceError if the level asked for cannot be had. `assumeFrozen`: not even if all froze that is still to
   * freeze.
   */
  checkLevel(how: { readonly assumeFrozen?: boolean } = {}): void {
    const concerned = this.writers?.speaks === true || this.#unsafeWriters.length > 0;
    const needed = levelNeeded(this.#head.request.require, concerned);
    // What the provider will do cannot be known before it has done it.
    if (needed !== undefined) checkLevel(this.#judge({ final: false, assumeProvider: true, ...how }), needed);
  }

  /** `final`: nothing more will come of it. */
  report(final: boolean): FreezeReport {
    const { id, request, leaseMs, clock } = this.#head;
    return buildReport({
      session: id,
      requester: request.requester,
      final,
      thawed: this.#outcome.unconfirmed === undefined,
      outcome: this.#outcome.kind,
      verdict: this.#judge({ final }),
      ...(this.#filesystems?.leavesAny === true
        ? { levelWithProvider: this.#judge({ final, assumeProvider: true }).level }
        : {}),
      error: this.#outcome.error,
      filesystems: this.#filesystems?.reports() ?? [],
      writers: this.writers?.reports(final) ?? [],
      accompanying: this.writers?.accompanying(final) ?? [],
      artefacts: this.#artefacts,
      unsafeWriters: this.#unsafeWriters,
      unreleased: final ? this.#unreleased() : [],
      skipped: this.#skipped,
      clock,
      leaseMs,
      frozenSpan: this.#filesystems?.frozenSpan,
    });
  }

  #unreleased(): readonly Change[] {
    const releases = this.writers?.releases ?? [];
    return releases.flatMap(({ path, released, reason = 'unknown' }) => (released ? [] : [{ what: path, reason }]));
  }

  #judge(how: {
    readonly final: boolean;
    readonly assumeFrozen?: boolean;
    readonly assumeProvider?: boolean;
  }): Verdict {
    const { final, assumeFrozen = false, assumeProvider = false } = how;
    const { kind: outcome, error } = this.#outcome;
    return judge({
      outcome,
      ...defined({ error }),
      filesystems: this.#filesystems?.reports({ assumeFrozen }) ?? [],
      writers: this.writers?.reports(final) ?? [],
      accompanying: this.writers?.accompanying(final) ?? [],
      unsafeWriters: this.#unsafeWriters,
      torn: tornFilesystems(this.#secondLook?.plan),
      changes: this.#secondLook?.changes ?? [],
      uncovered: this.#uncovered,
      disks: this.#unmounted?.facts(),
      trustPlainHooks: this.#settings.trustPlainHooks,
      assumeProvider,
    });
  }
}
