// Puts the filesystems of a plan in the order in which they freeze. Pure, and linear in what rests on what. Which of
// them freeze: plan.ts.
import type { DiskChain } from '../../linux/disks.js';
import type { Filesystem } from '../../linux/mounts.js';

/** A filesystem that has no place in the order yet. */
export interface Unordered {
  readonly filesystem: Filesystem;
  readonly chain: DiskChain;
  /** `provider`: held by the writers alone, and frozen by the requester's provider. */
  readonly action: 'freeze' | 'read-only' | 'provider' | 'leave';
}

export interface Ordered {
  /** Groups freeze in ascending order, one group side by side. */
  readonly group: number;
}

/**
 * What must freeze first comes first: a filesystem in a file before the one that holds the file (frozen the other way
 * round, its own FIFREEZE would hang on writing its log). What ends at disks of this machine freezes last, side by
 * side. Ties: the newest first, by each superblock's oldest mount.
 */
export function inFreezeOrder<T extends Unordered>(planned: readonly T[]): (T & Ordered)[] {
  const freezing = planned.filter(({ action }) => action === 'freeze').sort((a, b) => newerFirst(a, b));
  const oneByOne = innerFirst(freezing.filter(({ chain }) => !chain.direct));
  const sideBySide = freezing.filter(({ chain }) => chain.direct);
  const last = oneByOne.length;
  return [
    ...oneByOne.map((one, index) => ({ ...one, group: index })),
    ...sideBySide.map((one) => ({ ...one, group: last })),
    ...planned.filter(({ action }) => action !== 'freeze').map((one) => ({ ...one, group: last })),
  ];
}

function newerFirst(a: Unordered, b: Unordered): number {
  return b.filesystem.age - a.filesystem.age;
}

// Each stands right after what rests on it. A circle cannot be; if there were one, its newest would go last.
function innerFirst<T extends Unordered>(planned: readonly T[]): readonly T[] {
  const resting = new Map<Filesystem, T[]>();
  for (const one of planned) {
    for (const under of one.chain.restsOn) {
      const others = resting.get(under);
      if (others === undefined) resting.set(under, [one]);
      else others.push(one);
    }
  }
  const placed: T[] = [];
  const seen = new Set<T>();
  const place = (one: T): void => {
    if (seen.has(one)) return;
    seen.add(one);
    for (const inner of resting.get(one.filesystem) ?? []) place(inner);
    placed.push(one);
  };
  for (const one of planned) place(one);
  return placed;
}
