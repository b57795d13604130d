// Knows which sessions hold the guest, and keeps the log back meanwhile. Commands go on while a filesystem hangs in the
// kernel. The log does not: it may lie on that filesystem, and a write to it would stop this process
// (src/freeze/README.md, rule 9).
import type { HeldLogger } from '../log.js';

/** The session of a dead predecessor: no other one has this name. */
const PREDECESSOR = '';

export interface LogHold {
  /** Only what may run while frozen runs: some session, or a dead predecessor's, holds the guest. */
  readonly isFrozen: () => boolean;
  /** From now on `session` holds the guest, and the log is kept back. */
  readonly begin: (session: string) => void;
  /** The session has ended: commands go on. */
  readonly ended: (session: string) => void;
  /** Nothing of the session hangs any more: the log is written, unless something of another one does. */
  readonly writable: (session: string) => void;
  /** At the end of the agent: writes the log if nothing may be frozen. Otherwise the lines are lost. */
  readonly close: () => void;
}

/** @param recovered settles when nothing is frozen that a dead predecessor left; undefined if there is nothing */
export function logHold(logger: HeldLogger, recovered: Promise<void> | undefined): LogHold {
  // There are several only where nobody confirmed a thaw: the end of a later session is not the end of that one.
  const frozen = new Set<string>();
  const unwritable = new Set<string>();
  const begin = (session: string): void => {
    frozen.add(session);
    unwritable.add(session);
    logger.hold();
  };
  const ended = (session: string): void => {
    frozen.delete(session);
  };
  const releaseIfWritable = (): void => {
    if (unwritable.size === 0) logger.release();
  };
  const writable = (session: string): void => {
    unwritable.delete(session);
    releaseIfWritable();
  };
  if (recovered !== undefined) {
    begin(PREDECESSOR);
    void recovered.then(() => {
      ended(PREDECESSOR);
      writable(PREDECESSOR);
    });
  }
  return { isFrozen: () => frozen.size > 0, begin, ended, writable, close: releaseIfWritable };
}
