// In which order the filesystems of a plan freeze. Pure, and linear in what rests on what.
import type { Filesystem } from './mounts.js';
import type { PlannedFilesystem } from './plan.js';

type Planned = Omit<PlannedFilesystem, 'group'>;

/**
 * What must freeze first comes first: a filesystem in a file before the one that holds the file (frozen the other way
 * round, its own FIFREEZE would hang on writing its log). What ends at disks of this machine freezes last, side by
 * side. Ties: the newest first, by each superblock's oldest mount.
 */
export function inFreezeOrder(planned: readonly Planned[]): PlannedFilesystem[] {
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

function newerFirst(a: Planned, b: Planned): number {
  return b.filesystem.age - a.filesystem.age;
}

// Each right after what rests on it. A circle cannot be; if there were one, the newest of it would go last.
function innerFirst(planned: readonly Planned[]): readonly Planned[] {
  const resting = new Map<Filesystem, Planned[]>();
  for (const one of planned) {
    for (const under of one.chain.restsOn) {
      const others = resting.get(under);
      if (others === undefined) resting.set(under, [one]);
      else others.push(one);
    }
  }
  const placed: Planned[] = [];
  const seen = new Set<Planned>();
  const place = (one: Planned): void => {
    if (seen.has(one)) return;
    seen.add(one);
    for (const inner of resting.get(one.filesystem) ?? []) place(inner);
    placed.push(one);
  };
  for (const one of planned) place(one);
  return placed;
}
