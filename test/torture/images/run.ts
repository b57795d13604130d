// One run of `torture -- images`: the place, the sequence, the judgement.
import { describeError } from '../../../src/errors.js';
import { doAct } from './acts.js';
import { describeAct, type Act, type ActKind } from './act.js';
import type { ImagesDraw } from './draw.js';
import { judgeCall, type Complaint } from './judge.js';
import { Lab } from './lab.js';
import { endMigration, type Outcome } from './qemu-acts.js';
import { CALL_LIMIT_MS } from './tool.js';
import { judgeCopies, judgeNow, judgeRecovered } from './verdict.js';

export interface Step {
  readonly act: string;
  readonly kind: ActKind;
  /** A kill was drawn into it. */
  readonly strike: 'tool' | 'QEMU' | undefined;
  readonly outcome: Outcome;
  readonly why: string;
}

export interface ImagesResult {
  readonly index: number;
  readonly steps: readonly Step[];
  readonly complaints: readonly Complaint[];
  readonly tookMs: number;
  /** The slowest call of the tool. */
  readonly slowest: { readonly words: string; readonly ms: number } | undefined;
}

/** `each`: judges after each act, too, and ends at the first complaint. Never throws. */
export async function runImages(index: number, { layout, acts }: ImagesDraw, each: boolean): Promise<ImagesResult> {
  const begin = performance.now();
  const steps: Step[] = [];
  const complaints: Complaint[] = [];
  let slowest: ImagesResult['slowest'];
  try {
    await using lab = await Lab.build(layout);
    try {
      for (const machine of lab.machines)
        await machine.start(machine.originals(), machine.world.options[0] ?? new Map(), undefined);
      for (const act of acts) {
        const { outcome, why, complaints: found } = await doAct(lab, act);
        steps.push({ act: describeAct(act), kind: act.kind, strike: strikeOf(act), outcome, why });
        complaints.push(...found);
        if (each && complaints.length === 0) complaints.push(...(await judgeNow(lab)));
        if (complaints.length > 0) break;
      }
      for (const machine of lab.machines) await endMigration(machine, 'complete');
      if (complaints.length === 0) complaints.push(...(await judgeNow(lab)).map(early));
      complaints.push(...(await judgeRecovered(lab)), ...(await judgeCopies(lab)));
    } finally {
      complaints.push(...lab.calls.flatMap((call) => judgeCall(call, CALL_LIMIT_MS)));
      for (const { words, tookMs } of lab.calls)
        if (tookMs > (slowest?.ms ?? 0)) slowest = { words: words.slice(0, 2).join(' '), ms: Math.round(tookMs) };
    }
  } catch (error) {
    const stack = error instanceof Error ? (error.stack ?? '') : '';
    complaints.push({ kind: 'harness', text: `${describeError(error)} ${stack.split('\n').slice(1, 4).join(' ')}` });
  }
  const unique = [...new Map(complaints.map((complaint) => [complaint.text, complaint])).values()];
  return { index, steps, complaints: unique, tookMs: Math.round(performance.now() - begin), slowest };
}

function early(complaint: Complaint): Complaint {
  return { ...complaint, text: `before recover: ${complaint.text}` };
}

function strikeOf(act: Act): Step['strike'] {
  return 'strike' in act ? act.strike?.who : undefined;
}
