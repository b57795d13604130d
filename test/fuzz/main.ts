// npm run fuzz -- [--count N] [--seed S] [--target NAME]... [--only N] [--json] [--peer] [--record]
//
// N inputs, shared out evenly among the targets; the same seed gives the same inputs. Exit 1 if anything failed, 2 on
// usage. --only runs one input of one target. --peer sends N inputs to Debian's qemu-ga and to ours and lists what
// differs. --record makes the corpus anew. The last line is `P passed, F failed`, or with --json the numbers.
import { parseArgs } from 'node:util';
import { defined } from '../../src/defined.js';
import { FREEZER_PARSER, runFreezerParser } from './freezer-parser.js';
import { compareWithPeer } from './peer.js';
import { recordCorpus } from './record.js';
import { mib, runTarget, type Result } from './run.js';
import type { Target } from './target.js';
import { dispatcher } from './targets/dispatcher.js';
import { freezerClient } from './targets/freezer-client.js';
import { freezerProgram } from './targets/freezer-program.js';
import { qgaClient } from './targets/qga-client.js';
import { qmpClient } from './targets/qmp-client.js';
import { wire } from './targets/wire.js';
import { startWatchdog } from './watchdog.js';

const all: readonly Target[] = [wire, dispatcher, freezerClient, freezerProgram, qmpClient, qgaClient];
const names = [...all.map(({ name }) => name), FREEZER_PARSER];
const HANG_LIMIT_MS = 30_000;

class Usage extends Error {}

function whole(name: string, text: string): number {
  if (!/^\d{1,10}$/.test(text)) throw new Usage(`--${name} expects a whole number, found '${text}'`);
  return Number(text);
}

function readOptions() {
  const { values } = parseArgs({
    options: {
      count: { type: 'string', default: '20000' },
      seed: { type: 'string', default: '1' },
      target: { type: 'string', multiple: true, default: names },
      only: { type: 'string' },
      json: { type: 'boolean', default: false },
      peer: { type: 'boolean', default: false },
      record: { type: 'boolean', default: false },
    },
  });
  for (const name of values.target) {
    if (!names.includes(name)) throw new Usage(`--target expects one of ${names.join(', ')}, found '${name}'`);
  }
  const isOne = values.target.length === 1 && values.target[0] !== FREEZER_PARSER;
  if (values.only !== undefined && !isOne) throw new Usage(`--only expects one --target, not ${FREEZER_PARSER}`);
  return {
    targets: values.target,
    seed: whole('seed', values.seed),
    count: whole('count', values.count),
    only: values.only === undefined ? undefined : whole('only', values.only),
    json: values.json,
    peer: values.peer,
    record: values.record,
  };
}

async function fuzz({ targets, seed, count, only, json }: ReturnType<typeof readOptions>): Promise<boolean> {
  const watchdog = startWatchdog(HANG_LIMIT_MS);
  const results: Result[] = [];
  for (const [index, name] of targets.entries()) {
    // The first ones take what does not divide.
    const share = Math.floor(count / targets.length) + (index < count % targets.length ? 1 : 0);
    const target = all.find((one) => one.name === name);
    const plan = { seed, count: share, ...defined({ only }) };
    const result = target === undefined ? await runFreezerParser(share, seed) : await runTarget(target, plan, watchdog);
    results.push(result);
    if (!json) print(result);
  }
  await watchdog.close();
  const failed = results.filter(({ failure }) => failure !== undefined).length;
  const inputs = results.reduce((sum, result) => sum + result.inputs, 0);
  const recorded = results.reduce((sum, result) => sum + result.recorded, 0);
  if (json) console.log(JSON.stringify({ seed, inputs, recorded, results }));
  else {
    console.log(`${inputs} inputs, ${recorded} of them from recorded transcripts; seed ${seed}`);
    console.log(`${results.length - failed} passed, ${failed} failed`);
  }
  return failed === 0;
}

function print(result: Result): void {
  const { target, inputs, accepted, rejected, perSecond, perCpuSecond, grownBytes, peakBytes, failure } = result;
  const speed = `${perSecond}/s (${perCpuSecond} per processor second)`;
  const memory = `held ${mib(grownBytes)} more, peak ${mib(peakBytes)}`;
  console.log(`${target.padEnd(15)} ${inputs} inputs: ${accepted} accepted, ${rejected} rejected; ${speed}; ${memory}`);
  if (failure !== undefined) console.log(`FAILED: ${failure}`);
}

async function compare({ seed, count, json }: ReturnType<typeof readOptions>): Promise<boolean> {
  const { inputs, withheld, same, accepted, unknown } = await compareWithPeer({ seed, count });
  const known = [...accepted].map(([{ name, why }, times]) => ({ name, why, times }));
  const other = [...unknown].map(([kind, differences]) => ({ kind, times: differences.length, first: differences[0] }));
  if (json) console.log(JSON.stringify({ seed, inputs, withheld, same, accepted: known, unknown: other }));
  else {
    console.log(
      `${inputs} inputs to qemu-ga 7.2 and to ours: ${withheld} withheld, ${same} answered with the same bytes`,
    );
    for (const { name, why, times } of known) console.log(`accepted, ${times} answers: ${name} (${why})`);
    for (const { kind, times, first } of other) console.log(`UNKNOWN, ${times}: ${kind}\n  ${JSON.stringify(first)}`);
    console.log(`${known.length} passed, ${other.length} failed`);
  }
  return other.length === 0;
}

async function main(): Promise<void> {
  const options = readOptions();
  if (options.record) await recordCorpus();
  else if (!(await (options.peer ? compare(options) : fuzz(options)))) process.exitCode = 1;
}

main().catch((error: unknown) => {
  const isUsage = error instanceof Usage || (error instanceof TypeError && 'code' in error);
  console.error(isUsage ? error.message : error);
  process.exitCode = isUsage ? 2 : 1;
});
