// How long each step lasts when nothing goes wrong, by the guest's clock: the range of the random instants.
import { startClient, startTool } from '../vm/faults/requesters.js';
import { STEPS, type Step, type Timeline } from '../vm/faults/timeline.js';
import type { GuestKeeper } from '../vm/faults/guest-keeper.js';

export type Lengths = Readonly<Record<Step, number>>;

const SAMPLES = 3;
const LEASE_MS = 10_000;

/** Milliseconds of each step in the keeper's guest, with that requester. */
export async function calibrate(keeper: GuestKeeper, requesterKind: 'client' | 'tool'): Promise<Lengths> {
  const samples: Lengths[] = [];
  for (let sample = 0; sample < SAMPLES; sample++) {
    const lab = await keeper.lab();
    await using requester = await (requesterKind === 'tool' ? startTool : startClient)(lab, { leaseMs: LEASE_MS });
    const { level, error } = await requester.done;
    if (level !== 'application')
      throw new Error(`calibration: expected application, found ${error ?? level ?? 'nothing'}`);
    samples.push(lengthsOf(await lab.timeline()));
    await requester[Symbol.asyncDispose]();
  }
  return medians(samples);
}

/** From each step's sign to the next one's, as fault-lab waits for them. */
function lengthsOf({ phases, markers }: Timeline): Lengths {
  const begun = (phase: string): number =>
    Math.min(...phases.filter((each) => each.phase === phase).map(({ beginNs }) => beginNs));
  const marker = (is: (state: Timeline['markers'][number]['state']) => boolean): number =>
    markers.find(({ state }) => is(state))?.ns ?? Number.NaN;
  const first = marker((state) => state !== undefined);
  const frozen = marker((state) => state?.intended === 0);
  const end = markers.findLast(({ state }) => state === undefined)?.ns ?? Number.NaN;
  const thawed = Math.min(markers.find(({ state }) => (state?.thawed ?? 0) > 0)?.ns ?? Infinity, end);
  const released = Math.max(...phases.filter(({ phase }) => phase === 'thaw').map(({ endNs }) => endNs ?? Number.NaN));
  const ms = (from: number, to: number): number => {
    const length = Math.round((to - from) / 1e4) / 100;
    if (Number.isNaN(length)) throw new Error('calibration: the timeline of a sound snapshot lacks a step');
    return Math.max(0.1, length);
  };
  return {
    prepare: ms(begun('prepare'), begun('freeze')),
    hold: ms(begun('freeze'), first),
    freeze: ms(first, frozen),
    frozen: ms(frozen, thawed),
    thaw: ms(thawed, end),
    release: ms(begun('thaw'), released),
  };
}

function medians(samples: readonly Lengths[]): Lengths {
  const of = (step: Step): number =>
    samples.map((each) => each[step]).sort((a, b) => a - b)[Math.floor(samples.length / 2)] ?? 0;
  return Object.fromEntries(STEPS.map((step) => [step, of(step)])) as Lengths;
}
