// Makes the one logger. While something is frozen the agent writes to no path outside tmpfs (src/freeze/README.md):
// `hold` keeps lines in a ring in memory, `release` writes them. The oldest lines of a full ring are dropped and
// counted.
import { pino, type Logger } from 'pino';
import { closeSync, openSync, writeSync } from 'node:fs';

export type { Logger };

/** How much is kept while held: some 4000 lines of the usual length. */
const RING_CHARACTERS = 1024 * 1024;

export interface HeldLogger {
  readonly log: Logger;
  /** From now on lines stay in memory. May be called again. */
  hold(): void;
  /** Writes the lines that were held. May be called when nothing is held. */
  release(): void;
  close(): void;
}

/** Logs JSON lines to `file`, else to stderr. Throws what open(2) does. */
export function createLogger(level: string, file?: string): HeldLogger {
  const fd = file === undefined ? 2 : openSync(file, 'a', 0o640);
  let ring: string[] | undefined;
  let ringLength = 0;
  let dropped = 0;
  const write = (line: string): void => {
    if (ring === undefined) {
      writeAll(fd, line);
      return;
    }
    ring.push(line);
    ringLength += line.length;
    while (ringLength > RING_CHARACTERS) {
      ringLength -= ring.shift()?.length ?? 0;
      dropped++;
    }
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
      ringLength = 0;
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
