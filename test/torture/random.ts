// npm run torture -- random --count N --seed S [--only I[,I...]] [--jobs N] [--json]: snapshots with a random fault at a
// random instant of a random step. Nothing is held open here: the steps last as long as they last (calibrated first), and
// where the fault really struck is read from what the guest noted. A run is repeated by its seed and number alone.
import { describeError } from '../../src/errors.js';
import type { GuestKind } from '../../src/testing/index.js';
import { faultRecords } from '../vm/faults/faults.js';
import { GuestKeeper } from '../vm/faults/guest-keeper.js';
import { prepareLabs } from '../vm/faults/lab.js';
import { readable, STEPS, type Step } from '../vm/faults/timeline.js';
import { calibrate, type Lengths } from './calibration.js';
import { draw, type Draw } from './draw.js';
import { runDraw, type RandomResult } from './random-run.js';
import { shareOut } from './share-out.js';
import { describeWorst, worstOf } from './worst.js';

export interface RandomOptions {
  readonly seed: number;
  readonly count: number;
  /** The numbers of runs: only these. */
  readonly only: readonly number[] | undefined;
  /** User-mode guests at a time. */
  readonly jobs: number;
  readonly json: boolean;
}

/** Who asks, in which guest: the steps of each last differently. */
const SETTINGS = ['user-mode client', 'qemu client', 'qemu tool'] as const;
type Setting = (typeof SETTINGS)[number];

function settingOf({ fault }: Draw): Setting {
  const { kind, requester } = faultRecords[fault];
  const setting = SETTINGS.find((each) => each === `${kind} ${requester}`);
  if (setting === undefined) throw new Error(`${fault}: nobody asks as ${requester} in a guest of kind ${kind}`);
  return setting;
}

/** Gives the exit code: 0 if every run held. */
export async function runRandom({ seed, count, only, jobs, json }: RandomOptions): Promise<number> {
  const say = json ? console.error : console.log;
  const start = performance.now();
  const indices = only ?? Array.from({ length: count }, (_, index) => index);
  const draws = indices.map((index) => ({ index, drawn: draw(seed, index) }));
  await prepareLabs();
  const lengths = await calibrateAll(SETTINGS.filter((each) => draws.some(({ drawn }) => settingOf(drawn) === each)));
  for (const [setting, of] of lengths) say(`seed ${seed}; steps of ${setting} last ${describeLengths(of)}`);
  const results: RandomResult[] = [];
  const tasks = draws.map(({ index, drawn }) => ({
    kind: faultRecords[drawn.fault].kind,
    act: async (keeper: GuestKeeper): Promise<void> => {
      const result = await oneRun(keeper, lengths.get(settingOf(drawn)), drawn, index);
      results.push(result);
      say(line(result, seed));
    },
  }));
  await shareOut(tasks, jobs);
  results.sort((a, b) => a.index - b.index);
  const failed = results.filter(({ complaints }) => complaints.length > 0);
  const drawnAt = countBy(results.map(({ step }) => step));
  const firedAt = countBy(results.flatMap(({ firedAt: at }) => (at === undefined ? [] : [at])));
  const missed = results.filter(({ firedAt: at }) => at === undefined).length;
  const counts = STEPS.map((step) => `${step} ${firedAt[step]} (drawn ${drawnAt[step]})`).join(', ');
  const inQemu = results.filter(({ kind }) => kind === 'qemu').length;
  const tookS = ((performance.now() - start) / 1000).toFixed(0);
  say(
    `${results.length} runs (${results.length - inQemu} in user-mode guests, ${inQemu} in QEMU) in ${tookS} s, ${failed.length} did not hold; fired at ${counts}; ${missed} after the session's end`,
  );
  say(describeWorst(results, ({ index, fault, kind }) => `${seed}/${index} ${fault}, ${kind}`));
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
      worst: worstOf(results),
    };
    console.log(JSON.stringify({ ...summary, lengthsMs: Object.fromEntries(lengths), runs }));
  }
  return failed.length === 0 ? 0 : 1;
}

/** Both kinds side by side, as the runs will be. */
async function calibrateAll(settings: readonly Setting[]): Promise<ReadonlyMap<Setting, Lengths>> {
  const lengths = new Map<Setting, Lengths>();
  const of = async (kind: GuestKind): Promise<void> => {
    await using keeper = new GuestKeeper(kind);
    for (const setting of settings)
      if (setting.startsWith(`${kind} `))
        lengths.set(setting, await calibrate(keeper, setting.endsWith('tool') ? 'tool' : 'client'));
  };
  await Promise.all([of('user-mode'), of('qemu')]);
  return lengths;
}

async function oneRun(
  keeper: GuestKeeper,
  lengths: Lengths | undefined,
  drawn: Draw,
  index: number,
): Promise<RandomResult> {
  const start = performance.now();
  try {
    if (lengths === undefined) throw new Error(`${drawn.fault}: its steps were not calibrated`);
    return await runDraw(keeper, lengths, drawn, index);
  } catch (error) {
    const complaints = [describeError(error), ...(await keeper.lastWords())];
    return {
      index,
      kind: keeper.kind,
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
  { index, kind, fault, step, firedAt, complaints, told, backMs, releaseMs, tookMs, timeline }: RandomResult,
  seed: number,
): string {
  const where = firedAt === step ? `at ${step}` : `at ${firedAt ?? 'no step'} (drawn: ${step})`;
  const shortTold = told.length > 40 ? `${told.slice(0, 37)}...` : told;
  const head = `${complaints.length === 0 ? 'ok  ' : 'FAIL'} ${seed}/${index} ${fault} ${where}, ${kind}: told ${shortTold}; back ${backMs ?? '-'} ms, release ${releaseMs ?? '-'} ms, took ${(tookMs / 1000).toFixed(1)} s`;
  if (complaints.length === 0) return head;
  return [head, ...complaints.map((each) => `       ${each}`), readable(timeline)].join('\n');
}

function countBy(steps: readonly Step[]): Record<Step, number> {
  const counts: Record<Step, number> = { prepare: 0, hold: 0, freeze: 0, frozen: 0, thaw: 0, release: 0 };
  for (const step of steps) counts[step]++;
  return counts;
}

function describeLengths(lengths: Lengths): string {
  return `(ms) ${STEPS.map((step) => `${step} ${lengths[step]}`).join(', ')}`;
}
