// bench -- writers: how the pause grows with the number of resident writers, each of which waits 20 ms to hold, and what of
// it is ours. Natively; nothing is frozen: the filesystems are a fixture's. Beside it as many hooks of the stock dispatcher,
// and as many plain hooks of ours, that wait as long.
import { chmodSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { execa } from 'execa';
import { FreezeHarness } from '../support/freeze-harness.js';
import { scratch } from '../support/scratch.js';
import { compare, measure, type Row } from './table.js';

const ROUNDS = 10;
const WAIT_MS = 20;
const COUNTS = [1, 3, 7, 15, 25, 50, 100];
/** Of the stock dispatcher and of plain hooks, which have their turns one by one: 2 s and more for a round. */
const HOOK_ROUNDS = 3;
const DISPATCHER = '/etc/qemu/fsfreeze-hook';
const SOURCE = path.join(import.meta.dirname, '../fixtures/writers/waits.c');
const NS_PER_MS = 1e6;

interface Round {
  readonly pauseMs: number;
  readonly prepareMs: number;
  /** Of this process, from the first question to hold until it has held and from the thaw until all are let go. */
  readonly ownMs: number;
}

export async function writers(): Promise<readonly Row[]> {
  using folder = scratch();
  const program = folder.path('waits');
  await execa('cc', ['-O2', '-Wall', '-Wextra', '-Werror', `-DWAIT_MS=${WAIT_MS}`, '-o', program, SOURCE]);
  const rows: Row[] = [];
  const equal = new Map<number, Round[]>();
  for (const count of COUNTS) equal.set(count, await residents(program, count, () => 50));
  const [one, last] = [COUNTS[0] ?? 1, COUNTS.at(-1) ?? 1];
  for (const [count, rounds] of equal) {
    const name = `${count} of equal rank`;
    rows.push(measure(`${name}: pause, ms`, pauses(rounds), null));
    if (count === 25 || count === last)
      rows.push(
        compare(
          `${name}: pause against ${one}`,
          pauses(rounds),
          pauses(equal.get(one) ?? []),
          count === last ? 2 : 1.4,
        ),
      );
    rows.push(
      measure(`${name}: our processor time in the pause for each, ms`, own(rounds, count), count === last ? 0.3 : null),
    );
    rows.push(
      measure(
        `${name}: prepare, ms`,
        rounds.map(({ prepareMs }) => prepareMs),
        count === last ? 1000 : null,
      ),
    );
  }
  const ranked = await residents(program, last, (index) => index);
  const perWriter = pauses(ranked).map((pauseMs) => pauseMs / last - WAIT_MS);
  rows.push(measure(`${last} of distinct ranks: pause for each beside its wait, ms`, perWriter, 3));
  for (const count of COUNTS) {
    const { ours, peer } = await hooks(count);
    rows.push(compare(`${count} plain hooks: pause against the stock dispatcher's, ms`, ours, peer, null));
    rows.push(
      compare(
        `${count} residents: pause against the stock dispatcher's hooks, ms`,
        pauses(equal.get(count) ?? []),
        peer,
        null,
      ),
    );
  }
  return rows;
}

const pauses = (rounds: readonly Round[]): number[] => rounds.map(({ pauseMs }) => pauseMs);
const own = (rounds: readonly Round[], count: number): number[] => rounds.map(({ ownMs }) => ownMs / count);

async function residents(program: string, count: number, rankOf: (index: number) => number): Promise<Round[]> {
  await using harness = new FreezeHarness();
  for (let index = 0; index < count; index++) {
    const file = path.join(harness.dir, 'first', `${String(index).padStart(3, '0')}-waits`);
    copyFileSync(program, file);
    chmodSync(file, 0o755);
    const phases = ['prepare', 'freeze', 'verify', 'thaw'];
    writeFileSync(`${file}.json`, JSON.stringify({ phases, resident: true, rank: rankOf(index), guarantee: 'held' }));
  }
  const first = path.join(harness.dir, 'first', '000-waits.cpu.sample');
  writeFileSync(first, '', { mode: 0o644 });
  // As the agent's: notes, scratch folders and what writers print lie on tmpfs.
  using memory = scratch('/dev/shm');
  const freezerSocket = path.join(harness.dir, 'run/freezer.sock');
  const coordinator = await harness.start({}, { runtimeDir: memory.dir, freezerSocket, holdBudgetMs: 60_000 });
  const rounds: Round[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const session = await coordinator.freeze({ requester: 'bench', leaseMs: 60_000, require: 'application' });
    const heldMs = onProcessorMs('/proc/self/schedstat') - onProcessorMs(first);
    const beforeMs = onProcessorMs('/proc/self/schedstat');
    const report = await session.thaw();
    const releasedMs = onProcessorMs('/proc/self/schedstat') - beforeMs;
    const prepare = report.steps.find(({ step }) => step === 'prepare');
    rounds.push({
      pauseMs: report.pauseWindowMs,
      prepareMs: (prepare?.endMs ?? NaN) - (prepare?.startMs ?? NaN),
      ownMs: heldMs + releasedMs,
    });
  }
  return rounds;
}

/** What the kernel counted of the main thread (proc(5), schedstat). */
function onProcessorMs(file: string): number {
  return Number(readFileSync(file, 'utf8').split(' ')[0]) / NS_PER_MS;
}

async function hooks(count: number): Promise<{ ours: number[]; peer: number[] }> {
  using folder = scratch();
  const dispatcher = folder.path('fsfreeze-hook');
  copyFileSync(DISPATCHER, dispatcher);
  mkdirSync(folder.path('fsfreeze-hook.d'));
  await using harness = new FreezeHarness();
  const body = `[ "$1" != freeze ] || sleep ${WAIT_MS / 1000}`;
  for (let index = 0; index < count; index++) {
    const file = path.join(folder.path('fsfreeze-hook.d'), `${index}-hook`);
    writeFileSync(file, `#!/bin/sh\n${body}\n`, { mode: 0o755 });
    chmodSync(file, 0o755);
    harness.hook(`${index}-hook`, body);
  }
  const coordinator = await harness.start({}, { holdBudgetMs: 60_000 });
  const ours: number[] = [];
  const peer: number[] = [];
  for (let round = 0; round < HOOK_ROUNDS; round++) {
    const session = await coordinator.freeze({ requester: 'bench', leaseMs: 60_000, require: 'filesystem' });
    ours.push((await session.thaw()).pauseWindowMs);
    const start = performance.now();
    // Its log goes to /var/log, if it may.
    for (const phase of ['freeze', 'thaw']) await execa('sh', [dispatcher, phase], { stdio: 'ignore' });
    peer.push(performance.now() - start);
  }
  return { ours, peer };
}
