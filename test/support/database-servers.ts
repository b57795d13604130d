// Database servers that run on this machine beside those of a test.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** Their data directories. */
export function serversOfThisMachine(names: readonly string[] = ['mariadbd', 'mysqld']): string[] {
  return readdirSync('/proc').flatMap((pid) => {
    try {
      const name = readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
      return names.includes(name) ? [readlinkSync(`/proc/${pid}/cwd`)] : [];
    } catch {
      return []; // no process, or it has just ended
    }
  });
}
