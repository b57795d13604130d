// Removes what runs left whose holder is dead (gc): their mounts, what providers made, their notes. Touches nothing of a
// run that is held, and nothing without our marks.
import { setTimeout as sleep } from 'node:timers/promises';
import { describeError } from '../errors.js';
import { isHeld, type Journal, type RunRecord } from './journal.js';
import { thisMaker, whyNotOurs, type Maker } from './maker.js';
import { stillRuns } from '../linux/process-stat.js';
import type { Run } from './program.js';
import type { Made, Provider } from './providers/provider.js';
import { unmountAll } from './shown-tree.js';
import { udevAsBefore } from './udev-last.js';

const END_LIMIT_MS = 5_000;
const END_STEP_MS = 50;

export interface Collected {
  /** What was removed, as its provider calls it. */
  readonly removed: readonly string[];
  /** What is left, with the reason. */
  readonly left: readonly { readonly what: string; readonly reason: string }[];
  /** What has our marks and is not ours to remove: another machine's, or of a run that is noted elsewhere. */
  readonly others: readonly { readonly what: string; readonly reason: string }[];
  /** Runs of which nothing is left but a loss that nobody was told of yet. */
  readonly lost: readonly { readonly run: string; readonly reason: string }[];
}

/** `only`: one run. Throws nothing: what cannot be looked at is told as left. */
export async function collect(
  journal: Journal,
  providers: readonly Provider[],
  run: Run,
  only?: string,
): Promise<Collected> {
  const removed: string[] = [];
  const left: { what: string; reason: string }[] = [];
  const others: { what: string; reason: string }[] = [];
  const lost: { run: string; reason: string }[] = [];
  const attempt = async (what: string, act: () => Promise<void>): Promise<void> => {
    try {
      await act();
    } catch (error) {
      left.push({ what, reason: describeError(error) });
    }
  };
  // First what is there, then whose it is: a run is noted before anything of it is made, and forgotten after.
  const there: { readonly provider: Provider; readonly made: Made }[] = [];
  for (const provider of providers)
    await attempt(`what ${provider.name} made`, async () => {
      for (const made of await provider.made()) there.push({ provider, made });
    });
  const now = thisMaker();
  const notes = new Map(journal.runs().map((id) => [id, journal.read(id)]));
  const isDead = (id: string): boolean => {
    const record = notes.get(id) ?? journal.read(id);
    if (record !== undefined && isHeld(record)) return false;
    if (journal.isUnreadable(id)) {
      if (only === undefined || only === id)
        left.push({
          what: `run ${id}`,
          reason: 'its notes cannot be read: another version made them, or they are damaged',
        });
      return false;
    }
    // What is being merged is gone only by its name, or by a reboot.
    return only === undefined ? record?.state !== 'reverting' : only === id;
  };
  const dead = [...new Set([...notes.keys(), ...there.map(({ made }) => made.run)])].filter(isDead);
  if (dead.some((id) => notes.get(id)?.state === 'making')) await udevAsBefore(run);
  for (const id of dead) {
    const record = notes.get(id);
    const before = left.length;
    await attempt(`the command of run ${id}`, async () => {
      await endCommand(record?.command);
    });
    await attempt(`the mounts of run ${id}`, async () => {
      await unmountAll(record?.mounts ?? [], run);
    });
    for (const { provider: called, name } of record?.snapshots ?? [])
      if (!providers.some((one) => one.name === called))
        left.push({ what: name, reason: `expected the provider ${called}, which made it, found none of that name` });
    for (const { provider, made } of ofRun(id, record, there, providers)) {
      const reason = record === undefined && made.maker !== undefined ? whyLeft(made.maker, now, only) : undefined;
      if (reason !== undefined) {
        others.push({ what: made.name, reason });
        continue;
      }
      await attempt(made.name, async () => {
        await provider.removeLeft(made);
        removed.push(made.name);
      });
    }
    if (left.length > before) continue;
    if (record === undefined) journal.forget(id);
    else journal.settle(record);
    if (record?.lost !== undefined && record.isDetached) lost.push({ run: id, reason: record.lost });
  }
  return { removed, left, others, lost };
}

/** Whoever names a run means it, if only it is of this machine. */
function whyLeft(made: Maker, now: Maker, only: string | undefined): string | undefined {
  return whyNotOurs(made, only === undefined ? now : { ...now, boot: '' });
}

/** What is there of it, and what only its notes tell of: a provider need not be able to list what it made. */
function ofRun(
  id: string,
  record: RunRecord | undefined,
  there: readonly { readonly provider: Provider; readonly made: Made }[],
  providers: readonly Provider[],
): readonly { readonly provider: Provider; readonly made: Made }[] {
  const listed = there.filter(({ made }) => made.run === id);
  const noted = (record?.snapshots ?? [])
    .filter(({ name }) => !listed.some(({ made }) => made.name === name))
    .flatMap(({ provider: called, name }) => {
      const provider = providers.find((one) => one.name === called);
      return provider === undefined || provider.listsAll ? [] : [{ provider, made: { run: id, name } }];
    });
  return [...listed, ...noted];
}

/** A command whose holder died reads what nobody watches: it is ended, first kindly. */
async function endCommand(command: RunRecord['command']): Promise<void> {
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    if (command === undefined || !stillRuns(command)) return;
    process.kill(command.pid, signal);
    for (let waitedMs = 0; waitedMs < END_LIMIT_MS && stillRuns(command); waitedMs += END_STEP_MS)
      await sleep(END_STEP_MS);
  }
  if (command !== undefined && stillRuns(command)) throw new Error(`process ${command.pid} does not end`);
}
