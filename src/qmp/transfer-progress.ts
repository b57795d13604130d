// Puts the progress of a transfer into one line: how far, how fast, how long yet.
import type { GroupProgress } from './job-group.js';

export interface TransferProgress extends GroupProgress {
  /** Bytes per second, since it began. */
  readonly rate: number;
  /** Undefined while nothing is known of the rate. */
  readonly leftMs: number | undefined;
}

/** Gives what it is told, with rate and time left by the monotonic clock. */
export function measured(): (progress: GroupProgress) => TransferProgress {
  const startMs = performance.now();
  return ({ current, total }) => {
    const rate = (1000 * current) / Math.max(1, performance.now() - startMs);
    const leftMs = rate === 0 ? undefined : (1000 * Math.max(0, total - current)) / rate;
    return { current, total, rate, leftMs };
  };
}

/** `doing`: what a person reads first, as `backing up`. */
export function progressLine(doing: string, { current, total, rate, leftMs }: TransferProgress): string {
  const percent = total === 0 ? 100 : Math.floor((100 * current) / total);
  const left = leftMs === undefined ? '' : `, ${duration(leftMs)} left`;
  return `${doing}: ${percent} % of ${mib(total)}, ${mib(rate)}/s${left}`;
}

function mib(bytes: number): string {
  return `${(bytes / 1024 / 1024).toFixed(bytes < 10 * 1024 * 1024 ? 1 : 0)} MiB`;
}

function duration(ms: number): string {
  const seconds = Math.ceil(ms / 1000);
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}
