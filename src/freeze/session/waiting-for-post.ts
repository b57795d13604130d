// Before step 1: the session before may still run `post` of its writers, or any session before `complete`, and no writer
// may be in two sessions at a time. They are waited for as long as this session may prepare. Then a writer whose failure
// would end the attempt ends it, and any other is left out, as one that failed.
import { Timer } from '../../deadline.js';
import { QuiesceError } from '../../errors.js';
import { vetoes } from '../judgement/requirement.js';
import type { Writer } from '../writers/folders.js';
import type { Progress } from './progress.js';

/** Writers of which a phase runs after its session, and for which session. */
export type BusyWriters = readonly BusyWriter[];
interface BusyWriter {
  readonly writer: Writer;
  readonly session: string;
  /** Absent for `post` and `abort`. */
  readonly phase?: 'complete';
}

export interface Predecessor {
  readonly id: string;
  /** Settles, never rejects, when what runs of its writers is done, those of sessions before included. */
  readonly settled: Promise<void>;
  readonly busy: BusyWriters;
}

/** By path: writers to leave out, and why. Throws a QuiesceError if the attempt ends by one of them, or is to stop. */
export async function waitForPost(progress: Progress, before: Predecessor): Promise<ReadonlyMap<string, string>> {
  progress.checkStop();
  const timer = new Timer();
  try {
    const first = await progress.unlessStopped(
      Promise.race([before.settled, timer.after(progress.prepareBudgetMs, 'late' as const)]),
    );
    return first === 'late' ? leftOut(progress, before) : new Map<string, string>();
  } finally {
    timer.clear();
  }
}

/** Both are waited for. */
export function bothBefore(one: Predecessor | undefined, other: Predecessor): Predecessor {
  if (one === undefined) return other;
  return {
    id: one.id,
    settled: Promise.all([one.settled, other.settled]).then(() => undefined),
    get busy() {
      return [...one.busy, ...other.busy];
    },
  };
}

function leftOut({ request, settings }: Progress, { id, busy }: Predecessor): ReadonlyMap<string, string> {
  // Without any, a resident is still ending.
  if (busy.length === 0 || busy.some(({ writer }) => vetoes(writer, request.require, settings.hookFailure))) {
    const names = busy.length === 0 ? 'a writer' : busy.map(({ writer }) => writer.name).join(', ');
    const phase = busy.at(-1)?.phase ?? 'post';
    const text = `${phase} of ${names} still runs since session ${busy.at(-1)?.session ?? id}: freeze later, or shorten its timeout.${phase}`;
    throw new QuiesceError('E_WRITER', text);
  }
  return new Map(
    busy.map(({ writer, session, phase = 'post' }) => [
      writer.path,
      `left out: its ${phase} still runs since session ${session}`,
    ]),
  );
}
