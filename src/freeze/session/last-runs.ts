// What became of each writer in the last session that it took part in, for bridge-writers: of sessions of this process,
// and after a start of those that are kept (kept-sessions.ts).
import { defined } from '../../defined.js';
import type { FreezeReport, LastRun, WriterListing } from '../../consistency.js';

type Told = Pick<FreezeReport, 'session' | 'writers' | 'accompanying'>;

export class LastRuns {
  readonly #byPath = new Map<string, LastRun>();

  /** To be told of sessions in the order of their end; of one session again when there is more to tell. */
  note({ session, writers, accompanying = [] }: Told): void {
    for (const { path, verdict, reason, phases } of [...writers, ...accompanying]) {
      const durationMs = phases.reduce((sum, { startMs, endMs }) => sum + endMs - startMs, 0);
      this.#byPath.set(path, { session, verdict, ...defined({ reason }), durationMs });
    }
  }

  /** The listing with what is known of that writer's last run. */
  with(listing: WriterListing): WriterListing {
    return { ...listing, ...defined({ last: this.#byPath.get(listing.path) }) };
  }
}
