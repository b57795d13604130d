// A folder for one test, removed with everything in it.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Scratch extends Disposable {
  readonly dir: string;
  path(name: string): string;
}

export function scratch(parent = tmpdir()): Scratch {
  const dir = mkdtempSync(join(parent, 'fsb-'));
  return {
    dir,
    path: (name) => join(dir, name),
    [Symbol.dispose]() {
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
