// Shares cuts out among guests, each of which is loaded anew for one after the other.
import { describeError, QuiesceError } from '../../src/errors.js';
import type { Lab } from './lab.js';
import { loadGuest, run, type Draw, type LoadGuest, type LoadKind, type RunResult } from './run.js';
import { describeRun } from './report.js';

export interface Task {
  readonly kind: LoadKind;
  readonly draw: Draw;
}

export interface Done {
  readonly runs: readonly RunResult[];
  /** Attempts of which nothing came: the agent refused, a guest did not come up. */
  readonly refused: readonly (Draw & { readonly why: string })[];
}

/** Of one cut: a machine that stands still for seconds makes writers give up, as they should. */
const MOST_ATTEMPTS = 4;
/** Overlays lie over each other until the guest ends. */
const MOST_CUTS_IN_QEMU = 5;

/**
 * Does all of them; a cut that is refused again and again is missing among the runs. Once `signal` is aborted none is begun.
 */
export async function shareOut(
  lab: Lab,
  tasks: readonly Task[],
  jobs: number,
  signal: AbortSignal,
  say: (line: string) => void,
): Promise<Done> {
  const runs: RunResult[] = [];
  const refused: (Draw & { readonly why: string })[] = [];
  const isStopped = (): boolean => signal.aborted;
  const worker = async (queue: Task[]): Promise<void> => {
    let guest: LoadGuest | undefined;
    let cuts = 0;
    const end = async (): Promise<void> => {
      await guest?.[Symbol.asyncDispose]();
      guest = undefined;
      cuts = 0;
    };
    try {
      for (let task = queue.shift(); task !== undefined && !isStopped(); task = queue.shift()) {
        const { kind, draw } = task;
        for (let attempt = 1; attempt <= MOST_ATTEMPTS && !isStopped(); attempt++) {
          try {
            guest ??= await loadGuest(kind, lab);
            const result = await run(guest, lab, draw);
            runs.push(result);
            say(describeRun(result, lab.engines));
            break;
          } catch (error) {
            const why = describeError(error);
            refused.push({ ...draw, why });
            say(`-    ${draw.seed}/${draw.index} ${draw.way}, ${kind}: ${why}`);
            // What the agent refused left the guest as it was; of anything else that is not known.
            if (!(error instanceof QuiesceError)) await end();
          }
        }
        if (kind === 'qemu' && ++cuts >= MOST_CUTS_IN_QEMU) await end();
      }
    } finally {
      await end();
    }
  };
  const of = (wanted: LoadKind): Task[] => tasks.filter(({ kind }) => kind === wanted);
  const [inQemu, inVolumes, userMode] = [of('qemu'), of('volumes'), of('user-mode')];
  // An emulated guest takes the place of another one: beside more than there are processors it is too slow to be held.
  const first = async (): Promise<void> => {
    await worker(inQemu);
    await others();
  };
  const others = async (): Promise<void> => {
    await worker(inVolumes);
    await worker(userMode);
  };
  await Promise.all([first(), ...Array.from({ length: jobs - 1 }, () => others())]);
  return { runs: runs.toSorted((a, b) => a.index - b.index), refused };
}
