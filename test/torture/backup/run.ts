// One run of `torture -- backup`: the place, the sequence, the judgement.
import { describeError } from '../../../src/errors.js';
import { describeAct } from './act.js';
import { doAct } from './acts.js';
import type { BackupDraw } from './draw.js';
import type { Complaint } from './judge.js';
import type { Outcome } from './outcome.js';
import { Place } from './place.js';
import { judgeRest, judgeRuns, judgeVm } from './verdict.js';

export interface Step {
  readonly act: string;
  readonly kind: string;
  /** What ended a backup before its time. */
  readonly ending: string | undefined;
  readonly outcome: Outcome;
  readonly why: string;
}

export interface BackupResult {
  readonly index: number;
  readonly steps: readonly Step[];
  readonly complaints: readonly Complaint[];
  /** Runs that were made, and how many of their disks were copied in full, or as increments. */
  readonly made: number;
  readonly full: number;
  readonly incremental: number;
  /** Restores that were compared with the bytes of their cut. */
  readonly compared: number;
  /** For people, behind how it went. */
  readonly about: string;
  readonly tookMs: number;
  readonly slowest: Place['slowest'];
}

/** `each`: judges the runs after each act, too, and ends at the first complaint. Never throws. */
export async function runBackups(index: number, drawn: BackupDraw, each: boolean): Promise<BackupResult> {
  const begin = performance.now();
  const steps: Step[] = [];
  const complaints: Complaint[] = [];
  let facts = { made: 0, full: 0, incremental: 0, compared: 0, slowest: undefined as Place['slowest'] };
  try {
    await using place = await Place.build(drawn);
    let patterns = 0;
    const pattern = (): number => (patterns++ % 255) + 1;
    try {
      for (const act of drawn.acts) {
        const { outcome, why } = await doAct(place, act, pattern);
        const ending = act.kind === 'backup' ? act.strike?.ending : undefined;
        steps.push({ act: describeAct(act), kind: act.kind, ending, outcome, why });
        if (each) complaints.push(...(await judgeRuns(place)));
        if (complaints.length + place.complaints.length > 0) break;
      }
      complaints.push(...(await judgeRest(place)), ...(await judgeRuns(place)), ...(await judgeVm(place)));
    } finally {
      complaints.push(...place.complaints);
      const { slowest, compared, kinds } = place;
      facts = { made: place.seen.size, ...kinds, compared, slowest };
    }
  } catch (error) {
    const stack = error instanceof Error ? (error.stack ?? '') : '';
    complaints.push({ kind: 'harness', text: `${describeError(error)} ${stack.split('\n').slice(1, 5).join(' ')}` });
  }
  const about = `, disks ${drawn.formats.join(' and ')}${drawn.isEncrypted ? ', encrypted' : ''}`;
  return { index, steps, complaints, ...facts, about, tookMs: Math.round(performance.now() - begin) };
}
