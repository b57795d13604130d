// One backup of a sequence: its guest may write meanwhile, and it may be ended before its time. The strike falls at a line of
// the tool's talk with the monitor, or some time later, when it copies, sums or publishes.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Run } from '../../support/cut-harness.js';
import { MonitorTap } from '../images/monitor-tap.js';
import type { Act, DrawnWrite, Ending } from './act.js';
import { ended, type Done } from './outcome.js';
import type { Place } from './place.js';

/** Lines of a backup's talk with the monitor, about. */
const linesOf = (disks: number): number => 60 + 40 * disks;

export async function backUp(place: Place, act: Act & { kind: 'backup' }, pattern: () => number): Promise<Done> {
  const { vm } = place;
  if (act.off && (await place.listed()).length > 0) await place.stop('quit');
  else await place.runs();
  const { strike } = act;
  await using tap = place.on ? await MonitorTap.listen(vm.at.folder.path('tap.sock'), vm.at.vm.qmp) : undefined;
  const words = vm.words(...act.words, ...(strike?.ending === 'no space' ? ['--min-free', '900000000'] : []));
  if (tap !== undefined) words.push('--qmp', vm.at.folder.path('tap.sock'));
  if (act.disk !== undefined && place.on) words.push('--disk', place.diskAt(act.disk).name);
  if (strike?.ending === 'guest refuses') vm.at.agent.mood = 'refuses';
  const attempt = new Attempt(place, words, strike?.ending);
  let later: Promise<void> = Promise.resolve();
  if (strike !== undefined && tap !== undefined) {
    const { at, laterMs } = strike;
    tap.arm(1 + Math.floor(at * linesOf(place.disks.length)), async () => {
      if (laterMs === undefined) await attempt.strike();
      else later = sleep(laterMs).then(() => attempt.strike());
    });
  }
  let run: Run | undefined;
  const made = await place.newRuns(async () => {
    const work = attempt.begin();
    await whileWriting(place, act.writes, pattern, work);
    run = await work;
    await tap?.disarm();
    await later;
  });
  vm.at.agent.mood = 'answers';
  return judge(place, run, made, attempt.struck);
}

function judge(place: Place, run: Run | undefined, made: readonly string[], struck: boolean): Done {
  if (run === undefined) return { outcome: struck ? 'struck' : 'done', why: made.length > 0 ? 'its run is there' : '' };
  const told = run.json['run'];
  const says = run.error.code === 'none' ? [String(told)] : [];
  if (says.join() !== made.join()) {
    const text = `a backup told of ${says.join() || `no run (${run.error.message})`}, and ${made.join() || 'none'} is there`;
    place.complaints.push({ kind: says.length > made.length ? 'run lost' : 'wrong answer', text });
  }
  const { outcome, why } = ended(run);
  return { outcome: struck && outcome === 'refused' ? 'struck' : outcome, why };
}

/** The guest writes on, as far as it is not held, until the work is over. */
async function whileWriting(
  place: Place,
  writes: readonly DrawnWrite[],
  pattern: () => number,
  work: Promise<unknown>,
): Promise<void> {
  const over = work.then(() => true);
  for (const write of writes) {
    if (await Promise.race([over, sleep(30).then(() => false)])) return;
    while (place.on && !(await place.write(write, pattern()))) {
      if (await Promise.race([over, sleep(10).then(() => false)])) return;
    }
  }
}

/** A call of `backup run` that can be ended before its time. */
class Attempt {
  struck = false;
  readonly #place: Place;
  readonly #words: readonly string[];
  readonly #ending: Ending | undefined;
  readonly #interrupt = new AbortController();
  #kill: () => Promise<void> = () => Promise.resolve();
  #isOver = false;

  constructor(place: Place, words: readonly string[], ending: Ending | undefined) {
    this.#place = place;
    this.#words = words;
    this.#ending = ending;
  }

  /** Undefined if it was killed. */
  async begin(): Promise<Run | undefined> {
    try {
      if (this.#ending !== 'tool killed') return await this.#place.call(this.#words, this.#interrupt.signal);
      // As users get it: a process of its own.
      const child = this.#place.vm.at.spawn(this.#words);
      this.#kill = async () => {
        child.kill('SIGKILL');
        await child;
      };
      await child;
      return undefined;
    } finally {
      this.#isOver = true;
    }
  }

  async strike(): Promise<void> {
    if (this.#isOver) return;
    this.struck = true;
    switch (this.#ending) {
      case 'tool killed':
        await this.#kill();
        return;
      case 'QEMU killed':
        await this.#place.stop('kill');
        return;
      case 'interrupted':
        this.#interrupt.abort('SIGTERM');
        return;
      case 'job cancelled':
        this.struck = await this.#cancelJob();
        return;
      case 'guest refuses':
      case 'no space':
      case undefined:
    }
  }

  async #cancelJob(): Promise<boolean> {
    const { at } = this.#place.vm;
    const job = (await at.jobs()).find(({ id }) => id.startsWith('fsb-backup-'));
    if (job === undefined) return false;
    // It may end by itself just now.
    return await at.vm.control.execute('job-cancel', { id: job.id }).then(
      () => true,
      () => false,
    );
  }
}
