// Puts the size of an overlay into one line, for `status` and `snapshot watch`.
import type { OverlaySize } from '../../host/sets/overlay-sizes.js';

export function sizeLine({ set, disk, file, allocatedBytes, ageMs, bytesPerHour }: OverlaySize): string {
  const size = allocatedBytes === undefined ? 'not there' : mib(allocatedBytes);
  const growth = bytesPerHour === undefined ? '' : `, ${mib(bytesPerHour)} per hour`;
  return `${file}: ${size} (set ${set}, disk ${disk}, ${(ageMs / 3_600_000).toFixed(1)} h old${growth})`;
}

export function mib(bytes: number): string {
  return `${Math.ceil(bytes / 1024 / 1024)} MiB`;
}
