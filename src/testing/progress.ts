// Tells people who wait of progress: lines on stderr, so that stdout stays for results. Vitest and the demo show them as
// they are.

const QUIET_MS = 2000;

/** One line of progress. */
export function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

/** Runs a step; says its name when it takes more than two seconds, and how long it took at the end. */
export async function step<T>(what: string, work: () => Promise<T>): Promise<T> {
  const start = performance.now();
  const timer = setTimeout(() => {
    say(`${what} ...`);
  }, QUIET_MS);
  try {
    return await work();
  } finally {
    clearTimeout(timer);
    const tookMs = performance.now() - start;
    if (tookMs > QUIET_MS) say(`${what}: ${(tookMs / 1000).toFixed(1)} s`);
  }
}
