// The filesystems of one session: brought to the freezer, synced until little is dirty, frozen, thawed, and what the
// kernel answered for each. How each was held: how-held.ts. Their order, and which are concerned: judgement/plan.ts.
import { constants } from 'node:os';
import { defined } from '../../defined.js';
import type { FilesystemReport, Span } from '../../consistency.js';
import { Deadline } from '../../deadline.js';
import { QuiesceError } from '../../errors.js';
import { EBUSY, EOPNOTSUPP, errnoText, ETIMEDOUT } from '../../linux/errno.js';
import type { FreezerConnection } from '../freezer/client.js';
import type { FilesystemAnswer } from '../freezer/lines.js';
import { frozenWhole, howHeld, isForeign, isThawed, type HeldFilesystem } from './how-held.js';
import type { FreezePlan } from '../judgement/plan.js';
import { readWriteCount, type WriteCount } from '../../linux/write-counters.js';

const { EIO } = constants.errno;

/** However little of the budget the writers left over: a sync that is not back after less says nothing of its disk. */
const SYNC_LEAST_MS = 2_000;
/** A sync this quick had little to write. */
const LITTLE_DIRTY_MS = 100;
const SYNC_PASSES = 5;
/** Filesystems that are known to have a FIFREEZE. It syncs for itself. */
const FREEZABLE_TYPES = new Set(['ext2', 'ext3', 'ext4', 'xfs', 'btrfs', 'f2fs', 'jfs', 'reiserfs', 'nilfs2', 'gfs2']);

export class FilesystemSet {
  readonly #held: readonly HeldFilesystem[];
  readonly #sysRoot: string;
  readonly #zeroMs: number;
  #final = false;

  constructor(plan: FreezePlan, sysRoot: string, zeroMs: number) {
    this.#sysRoot = sysRoot;
    this.#zeroMs = zeroMs;
    this.#held = plan.filesystems.map((planned) => ({
      planned,
      index: undefined,
      openErrno: undefined,
      openReason: undefined,
      sync: undefined,
      syncReturned: false,
      freeze: undefined,
      thaw: undefined,
      outstanding: false,
      gaveUp: false,
      hung: undefined,
      thawedByMarker: false,
      counts: { before: undefined, synced: undefined, after: undefined },
    }));
  }

  /** All mount points of what is held, for writers to look their paths up in. */
  get mountpoints(): string[] {
    return this.#held
      .filter(
        ({ planned: { action, inCut } }) =>
          action === 'freeze' || action === 'provider' || (action === 'read-only' && inCut),
      )
      .flatMap(({ planned }) => planned.filesystem.mounts.map((mount) => mount.mountpoint))
      .sort();
  }

  /** One that is concerned is left to the requester's provider. */
  get leavesAny(): boolean {
    return this.#held.some(({ planned: { action, concerned } }) => action === 'provider' && concerned);
  }

  /** How many filesystems the freezer took. */
  get openCount(): number {
    return this.#held.filter(({ index }) => index !== undefined).length;
  }

  /** Every FIFREEZE that was asked for returned 0, and no write before it is known to be lost. */
  get allFrozen(): boolean {
    return this.#held.every(
      (held) => held.planned.action !== 'freeze' || (held.freeze?.errno === 0 && frozenWhole(held).kind === 'frozen'),
    );
  }

  get frozenCount(): number {
    return this.#held.filter(({ freeze }) => freeze?.errno === 0).length;
  }

  get thawedCount(): number {
    return this.#held.filter(
      ({ freeze, thaw, thawedByMarker }) => freeze?.errno === 0 && (thaw?.errno === 0 || thawedByMarker),
    ).length;
  }

  /** Lets the freezer open all that are to freeze. Throws only if the freezer is gone. */
  async open(freezer: FreezerConnection): Promise<void> {
    const freezing = this.#held.filter(({ planned }) => planned.action === 'freeze');
    // Asked all at once: each turn between two processes costs as much as the work itself.
    await Promise.all(freezing.map((held) => openOne(held, freezer)));
  }

  /**
   * Syncs until a pass was quick. Where some may not be able to freeze, all are synced at least twice: only the second
   * pass proves that the first left nothing behind. Throws a QuiesceError that names the filesystems of which no sync
   * has come back. Their FIFREEZE, which syncs, would not come back either, and nothing is held for it.
   */
  async sync(freezer: FreezerConnection, remainingMs: () => number, signal: AbortSignal): Promise<void> {
    const enough = this.#held.every(({ planned }) => FREEZABLE_TYPES.has(planned.filesystem.type)) ? 1 : 2;
    if (this.openCount === 0) return;
    const budgetMs = Math.max(SYNC_LEAST_MS, remainingMs());
    const deadline = new Deadline(budgetMs);
    for (let pass = 1; pass <= SYNC_PASSES && deadline.remainingMs > 0 && !signal.aborted; pass++) {
      for (const held of this.#held) held.counts.before = this.#count(held);
      const answer = await freezer.sync(deadline.remainingMs);
      if (!answer.ok) return;
      const startMs = Math.min(...answer.answers.map((one) => one.startMs));
      const endMs = Math.max(...answer.answers.map((one) => one.endMs));
      for (const one of answer.answers) {
        const held = this.#byIndex(one.index);
        if (held !== undefined) recordSync(held, one);
      }
      for (const held of this.#held) held.counts.synced = this.#count(held);
      this.#checkSynced(budgetMs);
      if (pass >= enough && endMs - startMs < LITTLE_DIRTY_MS) return;
    }
  }

  #checkSynced(budgetMs: number): void {
    const hung = this.#held.filter(({ sync, syncReturned }) => sync !== undefined && !syncReturned);
    if (hung.length === 0) return;
    const names = hung.map(({ planned }) => planned.filesystem.mountpoint).join(', ');
    throw new QuiesceError(
      'E_SYNC',
      `not synced within ${Math.round(budgetMs)} ms, and nothing was held for it: ${names}. Its disk does not answer, or has that much to write: the sync goes on, so a later freeze has less to wait for`,
    );
  }

  recordFreeze(answers: readonly FilesystemAnswer[]): void {
    for (const answer of answers) {
      const held = this.#byIndex(answer.index);
      if (held === undefined) continue;
      if (answer.verb === 'sync') recordSync(held, answer);
      else held.freeze = answer;
    }
  }

  /** `isLast`: the freezer has released the session, and goes on by itself with what has not returned. */
  recordThaw(answers: readonly FilesystemAnswer[], isLast = false): void {
    for (const answer of answers) {
      const held = this.#byIndex(answer.index);
      if (held === undefined) continue;
      if (answer.verb === 'sync') {
        recordSync(held, answer);
        continue;
      }
      if (answer.verb === 'freeze') {
        // This is no answer of the kernel's, but the freezer's word that there was none.
        if (answer.errno === ETIMEDOUT && answer.endMs === 0) held.gaveUp = true;
        else held.freeze ??= answer;
        continue;
      }
      const isOpen = answer.errno === ETIMEDOUT;
      held.outstanding = !answer.ours && isOpen;
      held.hung = isLast && isOpen ? (answer.ours ? 'thaw' : 'freeze') : undefined;
      if (!answer.ours) continue;
      held.thaw = answer;
      // It was frozen even if the answer to its freeze was overtaken by our thaw.
      held.freeze ??= { ...answer, verb: 'freeze', errno: 0, endMs: answer.startMs };
    }
  }

  /** The freezer died, and `--thaw-marked` said that nothing is frozen any more. */
  recordThawedByMarker(): void {
    for (const held of this.#held) {
      held.outstanding = false;
      held.thawedByMarker = held.freeze?.errno === 0 && held.thaw?.errno !== 0;
    }
  }

  /** After the last FITHAW: counts writes, which tells whether those that cannot freeze were left alone. */
  finish(): void {
    for (const held of this.#held) held.counts.after = this.#count(held);
    this.#final = true;
  }

  /**
   * Mount points that were frozen, or still may be, and are not known to be thawed. A filesystem that hangs in its
   * FIFREEZE and was given up (`hangs`) is not among them: its thread thaws it as soon as that returns, and nothing
   * hastens that.
   */
  get unthawed(): readonly string[] {
    return this.#unthawed.map(({ planned }) => planned.filesystem.mountpoint);
  }

  /** The session ended before the kernel returned a FIFREEZE or FITHAW. Whoever writes there waits until it does. */
  get hangs(): boolean {
    return this.#held.some(({ hung }) => hung !== undefined);
  }

  /** All that are unthawed hang in their FITHAW, and the freezer keeps at it: nobody else has to wait for them. */
  get leftToFreezer(): boolean {
    return this.#unthawed.every(({ hung }) => hung === 'thaw');
  }

  get #unthawed(): readonly HeldFilesystem[] {
    return this.#held.filter(
      ({ freeze, thaw, thawedByMarker, outstanding, hung }) =>
        (outstanding && hung !== 'freeze') ||
        (freeze?.errno === 0 && !thawedByMarker && (thaw === undefined || !isThawed(thaw))),
    );
  }

  /** Mount points that somebody else thawed. */
  get foreignThaws(): readonly string[] {
    return this.#held.filter(isForeign).map(({ planned }) => planned.filesystem.mountpoint);
  }

  /** Errors at which guest-fsfreeze-freeze fails: all but EBUSY and EOPNOTSUPP. For people. */
  get freezeErrors(): readonly string[] {
    return this.#held.flatMap(({ planned, freeze, openErrno, openReason }) => {
      const errno = openErrno ?? freeze?.errno ?? 0;
      if ([0, EBUSY, EOPNOTSUPP].includes(errno)) return [];
      return [`${planned.filesystem.mountpoint}: ${openReason ?? errnoText(errno)}`];
    });
  }

  /** Milliseconds on CLOCK_MONOTONIC; undefined if nothing was frozen, or not all is thawed. */
  get frozenSpan(): Span | undefined {
    const frozen = this.#held.filter(({ freeze }) => freeze?.errno === 0);
    const starts = frozen.flatMap(({ freeze }) => freeze?.startMs ?? []).filter((ms) => ms > 0);
    const ends = frozen.flatMap(({ thaw }) => thaw?.endMs ?? []).filter((ms) => ms > 0);
    if (frozen.length === 0 || starts.length === 0 || ends.length < frozen.length) return undefined;
    return { startMs: Math.min(...starts), endMs: Math.max(...ends) };
  }

  /** `assumeFrozen`: as if every FIFREEZE still to come returned 0, to see before it whether it is worth while. */
  reports({ assumeFrozen = false } = {}): FilesystemReport[] {
    return this.#held.map((held) => {
      const { filesystem, chain, concerned } = held.planned;
      const { kind, reason } = howHeld(held, { final: this.#final, assumeFrozen });
      const span = (answer: FilesystemAnswer): Span => ({
        startMs: answer.startMs - this.#zeroMs,
        endMs: Math.max(answer.startMs, answer.endMs) - this.#zeroMs,
      });
      return {
        mountpoint: filesystem.mountpoint,
        type: filesystem.type,
        source: filesystem.source,
        device: filesystem.device,
        disks: chain.disks.map(({ serial, udevSerial, pciAddress, dev }) => ({
          ...(serial === undefined && udevSerial === undefined ? {} : { serial: serial ?? udevSerial }),
          ...defined({ pciAddress }),
          dev,
        })),
        concerned,
        held: kind,
        ...defined({ reason }),
        ...(held.freeze === undefined ? {} : { freezeErrno: held.freeze.errno }),
        ...(held.thaw === undefined ? {} : { thawErrno: held.thaw.errno }),
        ...(held.sync === undefined ? {} : { sync: span(held.sync) }),
        ...(held.freeze === undefined ? {} : { freeze: span(held.freeze) }),
        ...(held.thaw === undefined ? {} : { thaw: span(held.thaw) }),
      };
    });
  }

  // Only where writes may have to be counted: a filesystem that can freeze needs no such proof.
  #count(held: HeldFilesystem): WriteCount | undefined {
    if (held.planned.action !== 'freeze' || FREEZABLE_TYPES.has(held.planned.filesystem.type)) return undefined;
    const counts = held.planned.chain.devices.map((device) => readWriteCount(this.#sysRoot, device));
    if (counts.length === 0 || counts.includes(undefined)) return undefined;
    return counts.join(' + ');
  }

  #byIndex(index: number): HeldFilesystem | undefined {
    return this.#held.find((held) => held.index === index);
  }
}

function recordSync(held: HeldFilesystem, answer: FilesystemAnswer): void {
  held.syncReturned ||= answer.endMs > 0;
  held.sync = held.sync === undefined ? answer : { ...answer, startMs: held.sync.startMs };
}

async function openOne(held: HeldFilesystem, freezer: FreezerConnection): Promise<void> {
  const { planned } = held;
  // Subvolumes have device numbers of their own, unlike their mounts: there only the mount id identifies.
  const device = planned.filesystem.device.startsWith('0:') ? '0:0' : planned.filesystem.device;
  for (const mount of planned.mounts) {
    const answer = await freezer.add(planned.group, mount.id, device, mount.mountpoint);
    if (answer.ok) {
      held.index = answer.index;
      held.openErrno = held.openReason = undefined;
      return;
    }
    // The next mount of it may be a directory where this one is a file, or may still be there.
    held.openErrno = answer.code === 'fs' ? Number(answer.words[0] ?? EIO) : EIO;
    held.openReason = answer.text.replace(/^fs: /, '');
  }
}
