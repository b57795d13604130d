// npm run torture -- in-guest --count N --seed S [--kind KIND[,KIND]] [--only I[,I...]] [--json]: snapshots inside the guest,
// on one guest for each kernel: requesters are killed, leases end inside a section, room is used up, and two volumes are
// written in order (in-guest/draw.ts). A run is repeated by its seed, its kinds and its number alone.
import { describeError } from '../../src/errors.js';
import type { KernelVersion } from '../../src/testing/index.js';
import { kernels } from '../support/variants.js';
import { acts, type ActResult, type InGuestResult } from './in-guest/acts.js';
import { drawInGuest, KINDS, type InGuestDraw, type Kind } from './in-guest/draw.js';
import { Lab, type Lengths } from './in-guest/lab.js';
import { summary } from './in-guest/summary.js';

export interface InGuestOptions {
  readonly seed: number;
  readonly count: number;
  readonly only: readonly number[] | undefined;
  readonly kinds: readonly Kind[];
  readonly json: boolean;
}

/** Undefined if one of the words is no kind. */
export function kindsOf(text: string | undefined): readonly Kind[] | undefined {
  const kinds = text?.split(',').map((word) => KINDS.find((kind) => kind === word)) ?? KINDS;
  const known = kinds.filter((kind) => kind !== undefined);
  return known.length === kinds.length ? known : undefined;
}

/** Gives the exit code: 0 if every run held. */
export async function runInGuest({ seed, count, only, kinds, json }: InGuestOptions): Promise<number> {
  const say = json ? console.error : console.log;
  const begin = performance.now();
  const on = kernels('6.1', '6.12');
  const indices = only ?? Array.from({ length: count }, (_, index) => index);
  const draws = indices.map((index) => ({ index, drawn: drawInGuest(seed, index, kinds, on) }));
  const results: InGuestResult[] = [];
  const worker = async (kernel: KernelVersion): Promise<void> => {
    await using keeper = new LabKeeper(kernel);
    for (const { index, drawn } of draws) {
      if (drawn.kernel !== kernel) continue;
      const result = await oneRun(keeper, drawn, index, `${seed}-${index}`);
      results.push(result);
      say(describe(result, seed));
    }
  };
  await Promise.all(on.map(worker));
  results.sort((a, b) => a.index - b.index);
  const failed = results.filter(({ complaints }) => complaints.length > 0);
  const seconds = Math.round((performance.now() - begin) / 1000);
  const table = summary(results);
  say(`${results.length} runs in ${seconds} s, ${failed.length} did not hold`);
  for (const row of table) say(`  ${row.text}`);
  if (failed.length > 0) {
    const numbers = failed.map(({ index }) => index).join(',');
    say(`again: npm run torture -- in-guest --seed ${seed} --kind ${kinds.join(',')} --only ${numbers}`);
  }
  if (json) {
    const head = { torture: 'in-guest', seed, count: results.length, failed: failed.length, seconds };
    const figures = table.map(({ text, ...row }) => (text === '' ? {} : row));
    console.log(JSON.stringify({ ...head, kinds: figures, runs: results }));
  }
  return failed.length === 0 ? 0 : 1;
}

/** One guest after another: what a run left that did not hold must not be the next one's. */
class LabKeeper implements AsyncDisposable {
  readonly #kernel: KernelVersion;
  readonly #lengths = new Map<string, Lengths>();
  #lab: Lab | undefined;

  constructor(kernel: KernelVersion) {
    this.#kernel = kernel;
  }

  async lab(): Promise<Lab> {
    return (this.#lab ??= await Lab.boot(this.#kernel));
  }

  async lengths(paths: readonly string[]): Promise<Lengths> {
    const key = paths.join(' ');
    const known = this.#lengths.get(key) ?? (await (await this.lab()).lengths(paths));
    this.#lengths.set(key, known);
    return known;
  }

  async spend(): Promise<void> {
    const lab = this.#lab;
    this.#lab = undefined;
    await lab?.[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.spend();
  }
}

async function oneRun(keeper: LabKeeper, drawn: InGuestDraw, index: number, name: string): Promise<InGuestResult> {
  const start = performance.now();
  let result: ActResult;
  try {
    const lengths = async (paths: readonly string[]): Promise<Lengths> => await keeper.lengths(paths);
    result = await acts[drawn.kind]({ lab: await keeper.lab(), name, drawn, lengths });
  } catch (error) {
    result = { complaints: [describeError(error)], where: '-' };
  }
  if (result.complaints.length > 0) await keeper.spend();
  return { index, ...drawn, ...result, tookMs: Math.round(performance.now() - start) };
}

function describe(result: InGuestResult, seed: number): string {
  const { index, kind, kernel, paths, where, waitedS, complaints, tookMs } = result;
  const waited = waitedS === undefined ? '' : `, writes waited ${waitedS.toFixed(2)} s`;
  const word = complaints.length === 0 ? 'ok  ' : 'FAIL';
  const head = `${word} ${seed}/${index} ${kind}, ${kernel}, ${paths.join(' ')}: ${where}${waited}, took ${(tookMs / 1000).toFixed(1)} s`;
  return [head, ...complaints.map((each) => `       ${each}`)].join('\n');
}
