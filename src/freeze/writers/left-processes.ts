// Ends processes that a dead agent left running: phases that nobody waits for any more, and residents. They are known
// by the session's record; those that were started in the instant of its death, by what they were started with. A pid
// is never signalled unless its start time is the one that was noted or just read.
import { readdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { endGroup } from '../../linux/process-group.js';
import { hasEnded, processStat, stillRuns } from '../../linux/process-stat.js';
import type { LeftRecord } from './left-record.js';

interface Left {
  readonly pid: number;
  readonly startTime: string;
}

const POLL_MS = 10;
/** For a resident to see the end of its standard input. */
const LET_GO_MS = 1_000;
/** For reading the environment of other processes: a page fault on a frozen filesystem can block it. */
const LOOK_LIMIT_MS = 500;

/**
 * Ends their whole groups: a `freeze` that still runs would take its hold after the `thaw`. What a phase that is over
 * left in the background is its thaw's to end. `since`: start time of the dead agent. Never throws; takes about 3 s at
 * most.
 */
export async function endLeftProcesses(record: LeftRecord, session: string, since: string): Promise<void> {
  const noted = record.runningProcesses();
  const known = new Set(noted.map(({ pid }) => pid));
  const found = (await findUnnoted(record, session, since)).filter(({ pid }) => !known.has(pid));
  await Promise.all([...noted.map(endOne), ...found.map(endOne)]);
}

async function endOne(left: Left & { readonly resident?: boolean | undefined }): Promise<void> {
  if (left.resident === true && (await goneWithin(left, LET_GO_MS))) return;
  const stop = new AbortController();
  if (stillRuns(left)) await endGroup(left.pid, untilGone(left, stop.signal));
  stop.abort();
}

async function goneWithin(left: Left, limitMs: number): Promise<boolean> {
  return await untilGone(left, AbortSignal.timeout(limitMs));
}

// True when it is gone, false when told to stop waiting. It is no child of ours: there is no event to wait for.
async function untilGone(left: Left, stop: AbortSignal): Promise<boolean> {
  while (stillRuns(left)) {
    if (stop.aborted) return false;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  return true;
}

/** Leaders of sessions, younger than the dead agent, that carry what one of these phases was started with. */
async function findUnnoted(record: LeftRecord, session: string, since: string): Promise<readonly Left[]> {
  const starting = record.startingPhases();
  if (starting.length === 0) return [];
  const born = Number(since);
  // Not to be read means not to be looked at: its reader throws, and the session is looked at again.
  const candidates = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => processStat(Number(name)) ?? [])
    .filter((one) => one.session === one.pid && !hasEnded(one) && Number(one.startTime) >= born);
  const sought = starting.map(({ name, phase }) => [
    `FSFREEZE_SESSION=${session}`,
    `FSFREEZE_PHASE=${phase}`,
    `FSFREEZE_SCRATCH=${record.scratchPath(name)}`,
  ]);
  const look = Promise.all(
    candidates.map(async (one): Promise<readonly Left[]> => {
      const environment = await environmentOf(one.pid);
      return sought.some((words) => words.every((word) => environment.includes(word))) ? [one] : [];
    }),
  );
  const limit = new Promise<readonly (readonly Left[])[]>((resolve) => {
    setTimeout(resolve, LOOK_LIMIT_MS, []).unref();
  });
  return (await Promise.race([look, limit])).flat();
}

async function environmentOf(pid: number): Promise<readonly string[]> {
  try {
    return (await readFile(`/proc/${pid}/environ`, 'utf8')).split('\0');
  } catch {
    // The process ended meanwhile.
    return [];
  }
}
