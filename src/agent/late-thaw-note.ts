// Notes why the host's next plain thaw is to be answered with an error, beyond the death of this process: one line on
// tmpfs. It is kept until the host was told, or until a new freeze made it moot (src/freeze/README.md, rule 8).
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describeError } from '../errors.js';
import type { Logger } from '../log.js';

export interface LateThawNote {
  /** The reason; undefined if nothing is owed. Never throws. */
  read(): string | undefined;
  /** Throws what the file system throws. */
  write(reason: string): void;
  remove(): void;
}

export function lateThawNote(runtimeDir: string): LateThawNote {
  const path = join(runtimeDir, 'owed');
  return {
    read() {
      try {
        const line = readFileSync(path, 'utf8').split('\n', 1)[0];
        return line === '' ? undefined : line;
      } catch {
        return undefined;
      }
    },
    write(reason) {
      mkdirSync(runtimeDir, { recursive: true, mode: 0o755 });
      writeFileSync(path, `${reason.replaceAll('\n', ' ')}\n`, { mode: 0o600 });
    },
    remove() {
      rmSync(path, { force: true });
    },
  };
}

/** Writes the note for the next agent, or says in the log that it cannot be written. Never throws. */
export function leaveNote(note: LateThawNote, reason: string, log: Logger): void {
  try {
    note.write(reason);
  } catch (error) {
    log.error({ error: describeError(error) }, 'what the host is owed cannot be noted');
  }
}
