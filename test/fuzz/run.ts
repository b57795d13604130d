// Runs a target: inputs one after another, each with a limit, the memory held looked at in between, the first failure
// made smaller and printed with what repeats it alone.
import { defined } from '../../src/defined.js';
import { DeadlineError } from '../../src/errors.js';
import { withLimit } from '../../src/deadline.js';
import { makeInput, type Input } from './input.js';
import { heldBytes, peakBytes } from '../support/memory.js';
import { makeRandom } from './random.js';
import { Finding, show, type Target } from './target.js';
import type { Watchdog } from './watchdog.js';

export interface Plan {
  readonly seed: number;
  readonly count: number;
  /** This input alone. */
  readonly only?: number;
}

export interface Result {
  readonly target: string;
  readonly inputs: number;
  /** Made from recorded transcripts. */
  readonly recorded: number;
  readonly accepted: number;
  readonly rejected: number;
  readonly perSecond: number;
  /** By the processor time of this process. On a busy machine no other speed says anything. */
  readonly perCpuSecond: number;
  /** Memory held at the end beyond that after the first inputs. */
  readonly grownBytes: number;
  /** Of the process, since it began. */
  readonly peakBytes: number;
  readonly failure?: string;
}

const INPUT_LIMIT_MS = 10_000;
const GROWTH_LIMIT_BYTES = 24 * 1024 * 1024;
const PEAK_LIMIT_BYTES = 512 * 1024 * 1024;
/** Attempts to make a failing input smaller. */
const SHRINK_LIMIT = 400;

export async function runTarget(target: Target, { seed, count, only }: Plan, watchdog: Watchdog): Promise<Result> {
  const pieces = target.pieces();
  const counts = { accepted: 0, rejected: 0 };
  let recorded = 0;
  let failure: string | undefined;
  let stray: unknown;
  const onStray = (error: unknown): void => {
    stray ??= error ?? new Error('rejected with nothing');
  };
  process.on('unhandledRejection', onStray);
  process.on('uncaughtException', onStray);
  const one = async (input: Input): Promise<'accepted' | 'rejected'> => {
    await using runner = await target.start();
    return await verdictOf(runner, input);
  };
  const verdictOf = async (runner: Awaited<ReturnType<Target['start']>>, input: Input) => {
    const verdict = await withLimit('the input', INPUT_LIMIT_MS, runner.run(input));
    if (stray === undefined) return verdict;
    const found = stray;
    stray = undefined;
    throw new Finding(`unhandled: ${show(found)}`);
  };

  let inputs = 0;
  let base: number | undefined;
  let grown = 0;
  const warm = Math.min(2000, count >> 2);
  const lookEvery = Math.max(1000, Math.ceil(count / 50));
  const began = performance.now();
  const cpu = process.cpuUsage();
  try {
    await using runner = await target.start();
    const last = only === undefined ? count : only + 1;
    for (let number = only ?? 0; number < last; number++) {
      const input = makeInput(makeRandom(seed, target.name, number), pieces);
      const repeat = `npm run fuzz -- --target ${target.name} --seed ${seed} --only ${number}`;
      watchdog.begin(repeat);
      inputs++;
      if (input.recorded) recorded++;
      try {
        counts[await verdictOf(runner, input)]++;
      } catch (error) {
        const small = await shrink(input, one);
        failure = `${show(error)}\nalone: ${repeat}\ninput: ${describe(input)}\nsmaller: ${describe(small)}`;
        break;
      }
      if (number === warm) base = heldBytes();
      if (number % lookEvery !== 0 || base === undefined) continue;
      grown = heldBytes() - base;
      if (grown > GROWTH_LIMIT_BYTES) failure = `holds ${mib(grown)} more than after ${warm} inputs (input ${number})`;
      if (peakBytes() > PEAK_LIMIT_BYTES) failure = `took ${mib(peakBytes())} at its peak (input ${number})`;
      if (failure !== undefined) break;
    }
  } catch (error) {
    failure = show(error);
  } finally {
    process.off('unhandledRejection', onStray);
    process.off('uncaughtException', onStray);
  }
  const seconds = (performance.now() - began) / 1000;
  const used = process.cpuUsage(cpu);
  return {
    target: target.name,
    inputs,
    recorded,
    ...counts,
    perSecond: Math.round(inputs / seconds),
    perCpuSecond: Math.round((inputs * 1e6) / (used.user + used.system)),
    grownBytes: grown,
    peakBytes: peakBytes(),
    ...defined({ failure }),
  };
}

/** Leaves out parts as long as it still fails. A hang is left as it is: each attempt would take its limit. */
async function shrink(input: Input, run: (input: Input) => Promise<unknown>): Promise<Input> {
  const fails = async (attempt: Input): Promise<boolean> => {
    try {
      await run(attempt);
      return false;
    } catch (error) {
      if (error instanceof DeadlineError) left = 0;
      return true;
    }
  };
  let left = SHRINK_LIMIT;
  let small = input;
  if (!(await fails(small))) return small;
  for (let length = small.bytes.length >> 1; length > 0 && left > 0; length >>= 1) {
    for (let at = 0; at < small.bytes.length && left > 0; left--) {
      const bytes = Buffer.concat([small.bytes.subarray(0, at), small.bytes.subarray(at + length)]);
      if (await fails({ ...small, bytes })) small = { ...small, bytes };
      else at += length;
    }
  }
  return small;
}

const describe = ({ bytes, cut }: Input): string =>
  `${bytes.length} bytes, cut ${cut}: ${JSON.stringify(bytes.toString('latin1').slice(0, 600))}`;

export const mib = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
