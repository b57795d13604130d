// What a run of torture -- in-guest is, from the seed and its number alone (and what was asked for: kinds and kernels).
import type { KernelVersion } from '../../../src/testing/index.js';
import { generator } from '../draw.js';

/**
 * kill      SIGKILL of the requester at an instant of its run
 * lease     the lease ends while a device is suspended for the cut
 * overflow  the room of a snapshot is used up under the command
 * order     a writer that writes to one volume, then to another, again and again
 */
export const KINDS = ['kill', 'lease', 'overflow', 'order'] as const;
export type Kind = (typeof KINDS)[number];

export interface InGuestDraw {
  readonly kind: Kind;
  readonly kernel: KernelVersion;
  /** What is given to `exec`. */
  readonly paths: readonly string[];
  /** What an instant is counted from: the start of `exec`, or the hold of its first writer. */
  readonly from: 'start' | 'hold';
  /** 0 to 1: how far into that, or how much of what varies. */
  readonly within: number;
}

/** The volumes are those of test/support/in-guest.ts. `/srv/a` has another one mounted in it. */
const PATHS: Readonly<Record<Kind, readonly (readonly string[])[]>> = {
  kill: [['/srv/s'], ['/srv/a'], ['/srv/t'], ['/srv/a', '/srv/t'], ['/srv/pg', '/srv/wal']],
  lease: [['/srv/s'], ['/srv/t'], ['/srv/a']],
  overflow: [['/srv/s']],
  // The first is written first.
  order: [
    ['/srv/a', '/srv/t'],
    ['/srv/t', '/srv/a'],
    ['/srv/a/b', '/srv/s'],
    ['/srv/s', '/srv/t'],
    ['/srv/pg', '/srv/wal'],
  ],
};

export function drawInGuest(
  seed: number,
  index: number,
  kinds: readonly Kind[],
  kernels: readonly KernelVersion[],
): InGuestDraw {
  const next = generator(Math.imul(seed, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b));
  next();
  const of = <T>(list: readonly T[]): T => {
    const item = list[Math.floor(next() * list.length)];
    if (item === undefined) throw new Error('nothing to draw from');
    return item;
  };
  const kind = of(kinds);
  return { kind, kernel: of(kernels), paths: of(PATHS[kind]), from: of(['start', 'hold']), within: next() };
}
