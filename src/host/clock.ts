// CLOCK_MONOTONIC of this machine: comparable between processes of one boot, unlike performance.now().

/** Milliseconds, with microseconds behind the point. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint() / 1000n) / 1000;
}
