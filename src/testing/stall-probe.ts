// Runs vm-images/probes/stall-probe.c in a guest, which tells how long writes to each filesystem stood still. It is compiled
// once per source, with gcc.
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import * as v from 'valibot';
import { DeadlineError } from '../errors.js';
import { cached, keyOf, prune } from './cache.js';
import type { Guest } from './guest.js';
import { requirePrograms } from './programs.js';
import { recipeFile } from './recipes.js';

const SOURCE = 'probes/stall-probe.c';
/** Static: the guest may be older than this machine. */
const FLAGS = ['-O2', '-std=c11', '-Wall', '-Wextra', '-Werror', '-static', '-pthread'];
const COMPILE_LIMIT_MS = 60_000;
const REPORT_LIMIT_MS = 10_000;

const Report = v.object({
  sequence: v.number(),
  gaps: v.array(v.object({ directory: v.string(), longestMs: v.number(), writes: v.number() })),
});
export type StallGap = v.InferOutput<typeof Report>['gaps'][number];

export interface StallProbe extends AsyncDisposable {
  /** Forgets the longest gaps; a write under way counts from its beginning. */
  reset(): Promise<void>;
  /** Longest gap between two writes to each directory since the reset, and how many there were. */
  gaps(): Promise<readonly StallGap[]>;
  /** The longest gap on the worst of the directories since the reset, in milliseconds. */
  longestGapMs(): Promise<number>;
  /** Stops it, so that it is no load where another guest is measured. */
  rest(): Promise<void>;
  /** Lets it go on after a rest, which counts as a gap: reset it when it writes again. */
  goOn(): Promise<void>;
}

/** The part of a guest that a probe needs. */
export type ProbedGuest = Pick<Guest, 'copyIn' | 'exec' | 'start'>;

/**
 * Brings the probe into the guest and starts it on these directories, one filesystem each. `locks:DIR` stands for a writer
 * that needs the locks which hooks take there.
 */
export async function startStallProbe(guest: ProbedGuest, directories: readonly string[]): Promise<StallProbe> {
  await guest.copyIn([await compiledProbe()], '/run/fsb-probe');
  const output = `/run/fsb-probe/gaps-${crypto.randomUUID()}.json`;
  const running = await guest.start(['/run/fsb-probe/stall-probe', output, ...directories]);
  const read = async () => {
    const { stdout, exitCode } = await guest.exec(['/bin/cat', output], { check: false });
    return exitCode === 0 ? v.parse(Report, JSON.parse(stdout)) : undefined;
  };
  const newer = async (than: number) => {
    const end = performance.now() + REPORT_LIMIT_MS;
    for (;;) {
      const report = await read();
      if (report !== undefined && report.sequence > than) return report;
      if (performance.now() > end) throw new DeadlineError('report of the stall probe', REPORT_LIMIT_MS);
    }
  };
  const signal = async (name: string) => {
    await guest.exec(['/bin/kill', '-s', name, String(running.pid)]);
  };
  let { sequence } = await newer(0);
  const gaps = async () => {
    await signal('USR2');
    const report = await newer(sequence);
    ({ sequence } = report);
    return report.gaps;
  };
  return {
    gaps,
    longestGapMs: async () => Math.max(...(await gaps()).map(({ longestMs }) => longestMs)),
    reset: async () => {
      await signal('USR1');
    },
    rest: async () => {
      await signal('STOP');
    },
    goOn: async () => {
      await signal('CONT');
    },
    [Symbol.asyncDispose]: async () => {
      await signal('CONT'); // what rests takes no other signal
      await signal('TERM');
      await running.wait();
    },
  };
}

async function compiledProbe(): Promise<string> {
  const source = recipeFile(SOURCE);
  const name = `stall-probe-${keyOf(await readFile(source), ...FLAGS)}`;
  const directory = await cached('probes', name, COMPILE_LIMIT_MS, async (building) => {
    requirePrograms('probe');
    await execa('gcc', [...FLAGS, '-o', path.join(building, 'stall-probe'), source], { timeout: COMPILE_LIMIT_MS });
  });
  await prune('probes', 'stall-probe-', 2, async (old) => await Promise.resolve(old === directory));
  return path.join(directory, 'stall-probe');
}
