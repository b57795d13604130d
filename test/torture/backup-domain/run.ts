// One run of `torture -- backup --libvirt`: the domain, the sequence, the judgement.
import { describeError } from '../../../src/errors.js';
import type { LibvirtHost } from '../../support/libvirt.js';
import type { Complaint } from '../backup/judge.js';
import type { BackupResult, Step } from '../backup/run.js';
import { judgeRuns } from '../backup/verdict.js';
import { doDomainAct } from './acts.js';
import { describeDomainAct, type DomainAct } from './draw.js';
import { DomainPlace } from './place.js';
import { judgeDomain, judgeRest } from './verdict.js';

/** `each`: judges the runs after each act, too, and ends at the first complaint. Never throws. */
export async function runDomainBackups(
  host: LibvirtHost,
  index: number,
  acts: readonly DomainAct[],
  each: boolean,
): Promise<BackupResult> {
  const begin = performance.now();
  const steps: Step[] = [];
  const complaints: Complaint[] = [];
  let facts = { made: 0, full: 0, incremental: 0, compared: 0 };
  try {
    await using place = await DomainPlace.build(host, `run-${index}`);
    let patterns = 0;
    const pattern = (): number => (patterns++ % 255) + 1;
    try {
      for (const act of acts) {
        const { outcome, why } = await doDomainAct(place, act, pattern);
        const ending = act.kind === 'backup' ? act.strike?.ending : undefined;
        steps.push({ act: describeDomainAct(act), kind: act.kind, ending, outcome, why });
        if (each) complaints.push(...(await judgeRuns(place)));
        if (complaints.length + place.complaints.length > 0) break;
      }
      complaints.push(...(await judgeRest(place)), ...(await judgeRuns(place)), ...(await judgeDomain(place)));
    } finally {
      complaints.push(...place.complaints);
      facts = { made: place.seen.size, ...place.kinds, compared: place.compared };
    }
  } catch (error) {
    const stack = error instanceof Error ? (error.stack ?? '') : '';
    complaints.push({ kind: 'harness', text: `${describeError(error)} ${stack.split('\n').slice(1, 5).join(' ')}` });
  }
  return {
    index,
    steps,
    complaints,
    ...facts,
    about: '',
    slowest: undefined,
    tookMs: Math.round(performance.now() - begin),
  };
}
