// npm run torture -- random --count N --seed S [--only I[,I...]] [--json]: snapshots with a random fault at a random instant
// of a random step. Nothing is held open here: the steps last as long as they last (calibrated first), and where the
// fault really struck is read from what the guest noted. A run is repeated by its seed and number alone.
import { describeError } from '../../src/errors.js';
import { readable, STEPS, type Step } from '../vm/faults/timeline.js';
import { calibrate, type StepLengths } from './calibration.js';
import { draw, type Draw } from './draw.js';
import { GuestKeeper } from './guest-keeper.js';
import { runDraw, type RandomResult } from './random-run.js';

export interface RandomOptions {
  readonly seed: number;
  readonly count: number;
  /** The numbers of runs: only these. */
  readonly only: readonly number[] | undefined;
  readonly json: boolean;
}

/** Gives the exit code: 0 if every run held. */
export async function runRandom({ seed, count, only, json }: RandomOptions): Promise<number> {
  const say = json ? console.error : console.log;
  await using keeper = new GuestKeeper();
  const lengths = await calibrate(keeper);
  say(`seed ${seed}; steps last ${describeLengths(lengths)}`);
  const indices = only ?? Array.from({ length: count }, (_, index) => index);
  const results: RandomResult[] = [];
  for (const index of indices) {
    const result = await oneRun(keeper, lengths, draw(seed, index), index);
    results.push(result);
    say(line(result, seed));
  }
  const failed = results.filter(({ complaints }) => complaints.length > 0);
  const drawnAt = countBy(results.map(({ step }) => step));
  const firedAt = countBy(results.flatMap(({ firedAt: at }) => (at === undefined ? [] : [at])));
  const missed = results.filter(({ firedAt: at }) => at === undefined).length;
  const counts = STEPS.map((step) => `${step} ${firedAt[step]} (drawn ${drawnAt[step]})`).join(', ');
  say(`${results.length} runs, ${failed.length} did not hold; fired at ${counts}; ${missed} after the session's end`);
  if (failed.length > 0)
    say(`again: npm run torture -- random --seed ${seed} --only ${failed.map(({ index }) => index).join(',')}`);
  if (json) {
    const runs = results.map((each) => ({ ...each, timeline: undefined }));
    const summary = {
      torture: 'random',
      seed,
      count: results.length,
      failed: failed.length,
      fired: firedAt,
      drawn: drawnAt,
      missed,
    };
    console.log(JSON.stringify({ ...summary, lengthsMs: lengths, runs }));
  }
  return failed.length === 0 ? 0 : 1;
}

async function oneRun(keeper: GuestKeeper, lengths: StepLengths, drawn: Draw, index: number): Promise<RandomResult> {
  const start = performance.now();
  try {
    return await runDraw(keeper, lengths, drawn, index);
  } catch (error) {
    const complaints = [describeError(error)];
    return {
      index,
      ...drawn,
      firedAt: undefined,
      complaints,
      told: '',
      backMs: undefined,
      releaseMs: undefined,
      timeline: '',
      tookMs: Math.round(performance.now() - start),
    };
  } finally {
    await keeper.settle();
  }
}

function line(
  { index, fault, step, firedAt, complaints, told, backMs, tookMs, timeline }: RandomResult,
  seed: number,
): string {
  const where = firedAt === step ? `at ${step}` : `at ${firedAt ?? 'no step'} (drawn: ${step})`;
  const shortTold = told.length > 40 ? `${told.slice(0, 37)}...` : told;
  const head = `${complaints.length === 0 ? 'ok  ' : 'FAIL'} ${seed}/${index} ${fault} ${where}: told ${shortTold}; back ${backMs ?? '-'} ms, took ${(tookMs / 1000).toFixed(1)} s`;
  if (complaints.length === 0) return head;
  return [head, ...complaints.map((each) => `       ${each}`), readable(timeline)].join('\n');
}

function countBy(steps: readonly Step[]): Record<Step, number> {
  const counts: Record<Step, number> = { prepare: 0, hold: 0, freeze: 0, frozen: 0, thaw: 0, release: 0 };
  for (const step of steps) counts[step]++;
  return counts;
}

function describeLengths(lengths: StepLengths): string {
  const of = (kind: keyof StepLengths): string => STEPS.map((step) => `${step} ${lengths[kind][step]}`).join(', ');
  return `(ms) for the client: ${of('client')}; for the host tool: ${of('tool')}`;
}
