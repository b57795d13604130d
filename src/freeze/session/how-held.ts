// How one filesystem of a session was held, by what the kernel answered for it. Pure. What that is worth:
// judgement/verdict.ts.
import type { FilesystemReport } from '../../consistency.js';
import { EBUSY, EINVAL, ENOTTY, EOPNOTSUPP, errnoText, ETIMEDOUT } from '../../linux/errno.js';
import type { FilesystemAnswer } from '../freezer/lines.js';
import type { PlannedFilesystem } from '../judgement/plan.js';
import type { WriteCount } from '../../linux/write-counters.js';

/** One filesystem of the plan, and what is known of it so far. */
export interface HeldFilesystem {
  readonly planned: PlannedFilesystem;
  /** The freezer's number for it; undefined if the freezer did not take it. */
  index: number | undefined;
  openErrno: number | undefined;
  openReason: string | undefined;
  sync: FilesystemAnswer | undefined;
  /** A sync of it has come back, whatever it answered. */
  syncReturned: boolean;
  freeze: FilesystemAnswer | undefined;
  thaw: FilesystemAnswer | undefined;
  /** Its FIFREEZE had not returned when the thaw was told. It freezes, and is thawed, when that returns. */
  outstanding: boolean;
  /** Its FIFREEZE had not returned within its limit. */
  gaveUp: boolean;
  /** The call that the kernel has not returned. The session ended without it, and the freezer sees to it from there. */
  hung: 'freeze' | 'thaw' | undefined;
  /** Thawed without the kernel's answer having reached us (`--thaw-marked`). */
  thawedByMarker: boolean;
  /** Write counts after the last sync but one, after the last one, and after the thaw. */
  counts: { before: WriteCount | undefined; synced: WriteCount | undefined; after: WriteCount | undefined };
}

export interface HowHeld {
  readonly kind: FilesystemReport['held'];
  /** Why it is not held, or why that counts as held. */
  readonly reason?: string;
}

/** `assumeFrozen`: as if a FIFREEZE still to come returned 0. `final`: nothing more will come. */
export function howHeld(
  held: HeldFilesystem,
  { final, assumeFrozen }: { readonly final: boolean; readonly assumeFrozen: boolean },
): HowHeld {
  const { planned, freeze, thaw } = held;
  if (planned.action === 'read-only') return { kind: 'read-only' };
  if (planned.action === 'provider') return { kind: 'provider' };
  if (planned.action === 'leave') return { kind: 'none', reason: planned.reason ?? 'left out' };
  if (held.openErrno !== undefined)
    return { kind: 'none', reason: held.openReason ?? `cannot be opened: ${errnoText(held.openErrno)}` };
  if (held.gaveUp) return { kind: 'none', reason: `its freeze took too long${stillHangs(held)}` };
  if (held.outstanding) return { kind: 'none', reason: 'neither its freeze nor its thaw has returned' };
  if (freeze === undefined) {
    if (assumeFrozen) return frozenWhole(held);
    return { kind: 'none', reason: 'its freeze was not reached' };
  }
  if (freeze.errno === EBUSY) return { kind: 'none', reason: 'somebody else holds it frozen (EBUSY)' };
  if (freeze.errno === EOPNOTSUPP || freeze.errno === ENOTTY)
    return leftAlone(held, `${planned.filesystem.type} cannot freeze`, final);
  if (freeze.errno !== 0) return { kind: 'none', reason: `FIFREEZE: ${errnoText(freeze.errno)}` };
  if (isForeign(held)) return { kind: 'none', reason: 'thawed by somebody else before us (FITHAW: EINVAL)' };
  if (held.thawedByMarker) return { kind: 'none', reason: 'the freezer died; thawed by its marker' };
  if (thaw !== undefined && thaw.errno === ETIMEDOUT) return { kind: 'none', reason: 'its thaw has not returned' };
  if (thaw !== undefined && thaw.errno !== 0) return { kind: 'none', reason: `FITHAW: ${errnoText(thaw.errno)}` };
  if (final && thaw === undefined) return { kind: 'none', reason: 'nobody confirmed its thaw' };
  return frozenWhole(held);
}

// A filesystem that cannot freeze is held if the second sync found nothing to write, and nothing was written since.
// What the disk holds is then what the filesystem held when it was last in step with its disk.
function leftAlone(held: HeldFilesystem, why: string, final: boolean): HowHeld {
  const { before, synced, after } = held.counts;
  const none = (reason: string): { kind: 'none'; reason: string } => ({
    kind: 'none',
    reason: `${why}, and ${reason}`,
  });
  if (held.sync === undefined || held.sync.errno !== 0)
    return none(`it was not synced${held.sync === undefined ? '' : ` (${errnoText(held.sync.errno)})`}`);
  if (before === undefined || synced === undefined) return none('its writes are not counted');
  if (before !== synced) return none('it was still being written to when it was synced');
  if (final && after !== synced) return none('it was written to before the thaw');
  return { kind: 'synced', reason: `${why}; synced, and nothing written to it since` };
}

function stillHangs({ outstanding, hung }: HeldFilesystem): string {
  if (!outstanding) return '';
  return `, and has not returned${hung === undefined ? '' : ': given up, and thawed as soon as it does'}`;
}

// FIFREEZE may return 0 after a write that failed: the page is clean by then, and ext4 for one does not ask. The kernel
// tells syncfs of it, and only once (errseq), so a session without lost writes may follow.
export function frozenWhole({ sync }: HeldFilesystem): HowHeld {
  if (sync === undefined || sync.errno === 0 || sync.errno === ETIMEDOUT) return { kind: 'frozen' };
  return {
    kind: 'none',
    reason: `something written to it never reached its disk (syncfs: ${errnoText(sync.errno)}): see the guest's kernel log`,
  };
}

/** Somebody else thawed it. EINVAL means that only where FIFREEZE had returned 0 (../README.md, rule 3). */
export function isForeign({ freeze, thaw }: HeldFilesystem): boolean {
  return freeze?.errno === 0 && thaw?.errno === EINVAL;
}

/** Nothing is left to thaw: we did it, or somebody else had. */
export function isThawed(thaw: FilesystemAnswer): boolean {
  return thaw.errno === 0 || thaw.errno === EINVAL;
}
