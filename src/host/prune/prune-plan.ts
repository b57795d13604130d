// Decides which sets a prune merges, which it only forgets, and which it keeps. Decides from manifests alone, and
// refuses what is not settled: a set whose state is in doubt may lie on any of the others.
import { UsageError } from '../../errors.js';
import type { Manifest } from '../sets/manifest.js';

export interface PruneChoice {
  /** How many of the sets that hold a cut stay, the newest ones. At least 1: the newest is merged by commit. */
  readonly keep: number;
  /** Only sets older than that go. */
  readonly olderThanMs?: number;
  readonly nowMs: number;
}

export interface PrunePlan {
  /** Oldest first; one that an earlier prune began comes before the others, whatever is kept. */
  readonly merge: readonly Manifest[];
  /** Their overlays are merged back, or were never used: only the record is left. */
  readonly forget: readonly Manifest[];
  readonly keep: readonly Manifest[];
}

/** Throws a UsageError for a set that something else must be done with first. `manifests`: oldest first. */
export function planPrune(manifests: readonly Manifest[], { keep, olderThanMs, nowMs }: PruneChoice): PrunePlan {
  const isOld = ({ createdAt }: Manifest): boolean =>
    olderThanMs === undefined || nowMs - Date.parse(createdAt) > olderThanMs;
  const begun = manifests.filter(({ state, pruning }) => state === 'committing' && pruning === true);
  for (const { set, state, pruning } of manifests) {
    if (state === 'cut' || state === 'committed' || state === 'failed' || pruning === true) continue;
    const hint = state === 'creating' || state === 'cutting' ? 'see "recover"' : 'end that first';
    throw new UsageError('E_STATE_OF_SET', `nothing was pruned: ${set} is ${state}: ${hint}`);
  }
  const cut = manifests.filter(({ state }) => state === 'cut');
  const merge = cut.slice(0, Math.max(0, cut.length - keep)).filter(isOld);
  return {
    merge: [...begun, ...merge],
    forget: manifests.filter((each) => (each.state === 'committed' || each.state === 'failed') && isOld(each)),
    keep: cut.filter((each) => !merge.includes(each)),
  };
}
