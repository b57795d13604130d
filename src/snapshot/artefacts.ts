// Keeps what writers left for whoever keeps the snapshot (labels, positions in logs) beside a run's notes, in memory, for
// as long as the snapshots are there.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Artefact } from '../consistency.js';
import { CutError } from '../errors.js';

/**
 * Gives the folder, with a file `WRITER/NAME` for each; undefined if there are none. Throws a CutError
 * for a name that is none, and what the filesystem does.
 */
export function keepArtefacts(runFolder: string, artefacts: readonly Artefact[] = []): string | undefined {
  if (artefacts.length === 0) return undefined;
  const folder = join(runFolder, 'artefacts');
  for (const { writer, name, text, base64 = '', truncated } of artefacts) {
    for (const part of [writer, name])
      if (part === '' || part.includes('/') || part === '.' || part === '..')
        throw new CutError('E_CUT', `expected an artefact named by one component of a path, found '${part}'`);
    mkdirSync(join(folder, writer), { recursive: true, mode: 0o700 });
    // Half of one must not pass for the whole.
    const file = truncated === true ? `${name}.truncated` : name;
    writeFileSync(join(folder, writer, file), text ?? Buffer.from(base64, 'base64'), { mode: 0o600 });
  }
  return folder;
}
