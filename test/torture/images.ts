// npm run torture -- images --count N --seed S [--only I[,I...]] [--jobs N] [--json] [--each] [--shrink]: random sequences
// of what people, their machines and the tool do to the images of two VMs; after each, no acknowledged write may be
// lost, and what the tool says must be so. A run is repeated by its seed and number alone; --shrink leaves out of a run
// that does not hold all acts that it does not need, --each judges after each act.
import { ACT_KINDS, type ActKind } from './images/act.js';
import { drawImages, type ImagesDraw } from './images/draw.js';
import { COMPLAINTS } from './images/judge.js';
import { runImages, type ImagesResult, type Step } from './images/run.js';
import { toolAbilities } from './images/tool.js';
import { countComplaints, tally } from './tally.js';

export interface ImagesOptions {
  readonly seed: number;
  readonly count: number;
  readonly only: readonly number[] | undefined;
  readonly jobs: number;
  readonly json: boolean;
  readonly each: boolean;
  readonly shrink: boolean;
}

/** Commands that not every version of the tool has. */
const YOUNG = ['copy', 'prune'] as const;

/** Gives the exit code: 0 if every run held. */
export async function runImagesTorture(options: ImagesOptions): Promise<number> {
  const { seed, count, only, jobs, json, each, shrink } = options;
  const say = json ? console.error : console.log;
  const begin = performance.now();
  const abilities = await toolAbilities();
  const lacks = new Set<ActKind>(YOUNG.filter((command) => !abilities[command]));
  if (lacks.size > 0) say(`not drawn, since the tool does not know it: ${[...lacks].join(', ')}`);
  const queue = [...(only ?? Array.from({ length: count }, (_, index) => index))];
  const results: ImagesResult[] = [];
  const worker = async (): Promise<void> => {
    for (let index = queue.shift(); index !== undefined; index = queue.shift()) {
      const drawn = drawImages(seed, index, lacks);
      const result = await runImages(index, drawn, each);
      const shown = shrink && result.complaints.length > 0 ? await shrunk(index, drawn, result) : result;
      results.push(shown);
      say(describe(shown, seed, drawn));
    }
  };
  await Promise.all(Array.from({ length: jobs }, worker));
  results.sort((a, b) => a.index - b.index);
  const failed = results.filter(({ complaints }) => complaints.length > 0);
  const steps = results.flatMap((result) => result.steps);
  const seconds = (performance.now() - begin) / 1000;
  say(`${results.length} runs in ${seconds.toFixed(0)} s, ${failed.length} did not hold`);
  const table = ACT_KINDS.filter((kind) => !lacks.has(kind)).map((kind) => tally(kind, steps));
  for (const { kind, drawn, done, refused, struck, idle } of table)
    say(`  ${kind}: drawn ${drawn}, done ${done}, refused ${refused}, struck ${struck}, nothing there ${idle}`);
  const strikes = strikesOf(steps);
  say(`  SIGKILL within an act: of the tool ${strikes.tool}, of QEMU ${strikes.QEMU}; after its end ${strikes.missed}`);
  const byKind = countComplaints(COMPLAINTS, failed);
  say(`runs by complaint: ${byKind.map(([kind, runs]) => `${kind} ${runs}`).join(', ') || 'none'}`);
  const worst = worstOf(results, seed);
  say(worst.text);
  if (failed.length > 0)
    say(`again: npm run torture -- images --seed ${seed} --only ${failed.map(({ index }) => index).join(',')}`);
  if (json) {
    const summary = { torture: 'images', seed, count: results.length, failed: failed.length, seconds, acts: table };
    const complaints = Object.fromEntries(byKind);
    console.log(JSON.stringify({ ...summary, strikes, complaints, worst, runs: results }));
  }
  return failed.length === 0 ? 0 : 1;
}

function describe(result: ImagesResult, seed: number, { layout }: ImagesDraw): string {
  const { index, steps, complaints, tookMs } = result;
  const head = `${complaints.length === 0 ? 'ok  ' : 'FAIL'} ${seed}/${index}: ${steps.length} acts in ${(tookMs / 1000).toFixed(1)} s`;
  if (complaints.length === 0) return head;
  const vms = layout.vms.map(({ disks, spelling, uuid, paused }, vm) => {
    const images = disks.map(({ format, golden }) => (golden ? `${format} over a golden image` : format)).join(' and ');
    return `       VM ${'ab'[vm] ?? ''}: ${images}, ${spelling}${uuid ? ', with UUID' : ''}${paused ? ', paused' : ''}`;
  });
  const { sharedImages, sharedOverlays, sameNames } = layout;
  return [
    head,
    `       images ${sharedImages ? 'in one folder' : 'apart'}, overlays ${sharedOverlays ? 'in one folder' : 'beside them'}, sets named ${sameNames ? 'alike' : 'apart'}`,
    ...vms,
    ...steps.map(({ act, outcome, why }) => `       - ${act}: ${outcome}${why === '' ? '' : ` (${why})`}`),
    ...complaints.map(({ kind, text }) => `       ${kind.toUpperCase()}: ${text}`),
  ].join('\n');
}

/** The same with fewer acts, as long as a complaint of the same kind comes of it; each is tried twice, since kills vary. */
async function shrunk(index: number, drawn: ImagesDraw, whole: ImagesResult): Promise<ImagesResult> {
  // The gravest that there is.
  const kind = COMPLAINTS.find((each) => whole.complaints.some((complaint) => complaint.kind === each));
  let best = whole;
  let acts = drawn.acts.slice(0, whole.steps.length);
  for (let at = acts.length - 1; at >= 0; at--) {
    const fewer = acts.filter((_, number) => number !== at);
    for (let attempt = 0; attempt < 2; attempt++) {
      const result = await runImages(index, { ...drawn, acts: fewer }, false);
      if (!result.complaints.some((complaint) => complaint.kind === kind)) continue;
      [best, acts] = [result, fewer];
      break;
    }
  }
  return best;
}

function strikesOf(steps: readonly Step[]): { tool: number; QEMU: number; missed: number } {
  const hit = (who: Step['strike']): number =>
    steps.filter(({ strike, outcome }) => strike === who && outcome === 'struck').length;
  const drawn = steps.filter(({ strike }) => strike !== undefined).length;
  const [tool, qemu] = [hit('tool'), hit('QEMU')];
  return { tool, QEMU: qemu, missed: drawn - tool - qemu };
}

function worstOf(results: readonly ImagesResult[], seed: number) {
  const run = results.reduce<ImagesResult | undefined>(
    (a, b) => (a === undefined || b.tookMs > a.tookMs ? b : a),
    undefined,
  );
  const call = results.reduce<ImagesResult | undefined>(
    (a, b) => ((b.slowest?.ms ?? 0) > (a?.slowest?.ms ?? 0) ? b : a),
    undefined,
  );
  const text = `slowest run ${run?.tookMs ?? '-'} ms (${seed}/${run?.index ?? '-'}); slowest call of the tool ${call?.slowest?.ms ?? '-'} ms (${call?.slowest?.words ?? '-'}, ${seed}/${call?.index ?? '-'})`;
  return { runMs: run?.tookMs, callMs: call?.slowest?.ms, text };
}
