// The one logger. While something is frozen the agent writes to no path outside tmpfs: `hold` keeps lines in a ring
// in memory, `release` writes them. The oldest lines of a full ring are dropped and counted.
import { pino, type Logger } from 'pino';
import { closeSync, openSync, writeSync } from 'node:fs';

export type { Logger };

/** Lines kept while held. At about 200 bytes each this stays below 1 MiB. */
const RING_LINES = 4096;

export interface HeldLogger {
  readonly log: Logger;
  /** From now on lines stay in memory. */
  hold(): void;
  /** Writes what was held. May be called when nothing is held. */
  release(): void;
  close(): void;
}

/** Logs JSON lines to `file`, else to stderr. Throws what open(2) does. */
export function createLogger(level: string, file?: string): HeldLogger {
  const fd = file === undefined ? 2 : openSync(file, 'a', 0o640);
  let ring: string[] | undefined;
  let dropped = 0;
  const write = (line: string): void => {
    if (ring === undefined) {
      writeAll(fd, line);
      return;
    }
    if (ring.length === RING_LINES) {
      ring.shift();
      dropped++;
    }
    ring.push(line);
  };
  const log = pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, { write });
  return {
    log,
    hold() {
      ring ??= [];
    },
    release() {
      const held = ring ?? [];
      ring = undefined;
      if (held.length > 0) writeAll(fd, held.join(''));
      if (dropped > 0) log.warn({ dropped }, 'log lines dropped while frozen');
      dropped = 0;
    },
    close() {
      if (fd !== 2) closeSync(fd);
    },
  };
}

// A log that cannot be written (full disk, closed stderr) must not end a program that may have to thaw.
function writeAll(fd: number, text: string): void {
  try {
    writeSync(fd, text);
  } catch {
    // Nowhere left to say so.
  }
}
