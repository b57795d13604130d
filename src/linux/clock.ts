// CLOCK_MONOTONIC, the one clock of the freeze path: the guest's running time, and the clock of the freezer's answers.
// (performance.now() has another zero.) Node's hrtime is that clock on Linux: libuv's uv_hrtime().

/** Milliseconds, with fractions. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** To the microsecond, as it is told. */
export function roundMs(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}
