// Damages a file of a repository as a failing disk does.
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';

/** Changes one bit; `at`: how far into the file, from 0 to 1. */
export function flipByte(file: string, at: number): void {
  const bytes = readFileSync(file);
  const offset = Math.floor(at * bytes.length);
  bytes[offset] = (bytes[offset] ?? 0) ^ 0x40;
  chmodSync(file, 0o600);
  writeFileSync(file, bytes);
}
