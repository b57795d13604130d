// The record of a run that whoever reads it waits for: what is done meanwhile comes between its look at the repository and its
// next step.
import { execFileSync } from 'node:child_process';
import { constants, mkdirSync } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { vi } from 'vitest';
import type { VmFolder } from '../../src/host/repository/layout.js';
import type { RunManifest } from '../../src/host/repository/run-manifest.js';

const READ_LIMIT_MS = 10_000;

/** Somebody waits for the record. */
interface Waiting extends AsyncDisposable {
  /** Gives it to them. */
  go(): Promise<void>;
}

/** Stores the run in the folder; what is given comes back when somebody reads its record. It is read once. */
export function holdManifest(folder: VmFolder, manifest: RunManifest): () => Promise<Waiting> {
  mkdirSync(folder.run(manifest.run), { recursive: true });
  const file = `${folder.run(manifest.run)}/manifest.json`;
  execFileSync('mkfifo', [file]);
  return async () => {
    // Without a reader it is no file to be opened, and nothing waits for one for ever.
    const fifo: FileHandle = await vi.waitFor(() => open(file, constants.O_WRONLY | constants.O_NONBLOCK), {
      timeout: READ_LIMIT_MS,
      interval: 10,
    });
    let isOpen = true;
    const close = async (): Promise<void> => {
      if (isOpen) await fifo.close();
      isOpen = false;
    };
    const go = async (): Promise<void> => {
      await fifo.writeFile(JSON.stringify(manifest));
      await close();
    };
    return { go, [Symbol.asyncDispose]: close };
  };
}
