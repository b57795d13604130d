// Reads CLOCK_MONOTONIC, the one clock of the freeze path: the guest's running time, and the clock of the freezer's
// answers. Node's hrtime is that clock on Linux (libuv's uv_hrtime()); performance.now() has another zero.

/** Milliseconds, with microseconds behind the point. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint() / 1000n) / 1000;
}

/** To the microsecond, as reports and logs have it. */
export function roundMs(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}
