// What the host is owed by a plain thaw, beyond this process's death: one line on tmpfs, kept until it was told or a
// new freeze made it moot (freeze path, "The guest always comes back", rule 8).
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface OwedNote {
  /** Undefined if nothing is owed. */
  read(): string | undefined;
  /** Throws what the file system throws. */
  write(reason: string): void;
  remove(): void;
}

export function owedNote(runtimeDir: string): OwedNote {
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
