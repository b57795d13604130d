// How much room a classic snapshot gets for what changes while it is held: what was asked for, else what was measured of
// its origin's writes; never more than the origin itself can need, and within what the volume group has. Pure.
import { CutError } from '../../errors.js';
import type { SizeWish } from '../providers/provider.js';

const MIB = 1024 * 1024;
const USUAL_PART = 0.1;
const LEAST_BYTES = 32 * MIB;
/** Measured churn is to last for this long; the room is extended meanwhile. */
const CHURN_S = 2 * 3600;
/** Of the group's free room the rest is for extensions. */
const SHARE = 0.8;
/** A chunk of 4 KiB takes 16 bytes of metadata; LVM refuses no larger one. */
const WHOLE_FACTOR = 1.01;

export interface Origin {
  readonly name: string;
  readonly sizeBytes: number;
  /** What was written to it, on average; undefined where the kernel does not count. */
  readonly writtenPerS: number | undefined;
}

export interface Room {
  readonly freeBytes: number;
  readonly extentBytes: number;
}

/** Bytes for each of them. All are of one group. Throws a CutError that says what is free and what would be needed. */
export function cowSizes(origins: readonly Origin[], { size }: SizeWish, room: Room): readonly number[] {
  const extents = (bytes: number): number => Math.ceil(bytes / room.extentBytes) * room.extentBytes;
  const wanted = origins.map(({ sizeBytes, writtenPerS }) => {
    const most = sizeBytes * WHOLE_FACTOR + MIB;
    const usual = Math.max(LEAST_BYTES, sizeBytes * USUAL_PART, (writtenPerS ?? 0) * CHURN_S);
    return Math.min(most, size === undefined ? usual : 'bytes' in size ? size.bytes : sizeBytes * size.part);
  });
  const sum = wanted.map(extents).reduce((total, bytes) => total + bytes, 0);
  if (sum <= room.freeBytes * (size === undefined ? SHARE : 1)) return wanted.map(extents);
  const least = origins.map(({ sizeBytes }) => extents(Math.min(LEAST_BYTES, sizeBytes * WHOLE_FACTOR + MIB)));
  const leastSum = least.reduce((total, bytes) => total + bytes, 0);
  // What was asked for is not made smaller behind anybody's back.
  if (size !== undefined || leastSum > room.freeBytes) {
    const names = origins.map(({ name }) => name).join(', ');
    const need = size === undefined ? leastSum : sum;
    throw new CutError(
      'E_NO_SPACE',
      `snapshots of ${names}: expected ${inMiB(need)} free in the volume group, found ${inMiB(room.freeBytes)}`,
      { facts: { needBytes: need, freeBytes: room.freeBytes } },
    );
  }
  // Each has its least; what is left is shared out by what each wanted more.
  const shared = Math.max(0, room.freeBytes * SHARE - leastSum);
  const more = wanted.map((bytes, place) => Math.max(0, bytes - (least[place] ?? 0)));
  const moreSum = more.reduce((total, bytes) => total + bytes, 0);
  return least.map((bytes, place) => {
    const part = moreSum === 0 ? 0 : Math.min(1, shared / moreSum) * (more[place] ?? 0);
    return bytes + Math.floor(part / room.extentBytes) * room.extentBytes;
  });
}

function inMiB(bytes: number): string {
  return `${Math.floor(bytes / MIB)} MiB`;
}
