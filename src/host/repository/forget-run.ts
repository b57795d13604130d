// Forgets runs: they are no longer shown, and each is removed once no run that somebody wants lies on it. So space may come
// back later than a run goes, and no other run is ever harmed.
import { mkdir, rename, rm } from 'node:fs/promises';
import { exists, removeFiles, writeDurably, syncPath } from '../images/durable-file.js';
import { bootEndings, type VmFolder } from './layout.js';
import type { RunManifest } from './run-manifest.js';
import type { Runs } from './runs.js';

/** Runs that others, which are wanted, need: their own and all they lie on. */
function neededRuns({ all, forgotten }: Runs): ReadonlySet<string> {
  const needed = new Set<string>();
  const visit = (run: string): void => {
    if (needed.has(run)) return;
    needed.add(run);
    for (const { base } of all.find((each) => each.run === run)?.disks ?? []) if (base !== undefined) visit(base.run);
  };
  for (const { run } of all) if (!forgotten.has(run)) visit(run);
  return needed;
}

/** The wanted runs that lie on this one, at whatever distance. */
export function dependents(runs: Runs, run: string): string[] {
  const { all, forgotten } = runs;
  return all
    .filter((each) => each.run !== run && !forgotten.has(each.run))
    .filter((each) => neededRuns({ ...runs, all, forgotten: others(all, each) }).has(run))
    .map((each) => each.run);
}

function others(all: readonly RunManifest[], { run }: RunManifest): ReadonlySet<string> {
  return new Set(all.map((each) => each.run).filter((each) => each !== run));
}

/** Durable when it returns. */
export async function markForgotten(folder: VmFolder, runs: readonly string[]): Promise<void> {
  if (runs.length === 0) return;
  await mkdir(folder.forgotten(), { recursive: true, mode: 0o750 });
  for (const run of runs) await writeDurably(folder.forgotten(run), `${new Date().toISOString()}\n`);
}

/** They are shown again, as far as they are there. Durable when it returns. */
export async function unmarkForgotten(folder: VmFolder, runs: readonly string[]): Promise<void> {
  if (await exists(folder.forgotten())) await removeFiles(runs.map((run) => folder.forgotten(run)));
}

/** Those of the forgotten runs that nobody lies on. Nothing, while a run cannot be read: it may lie on any. */
export function removable(runs: Runs): string[] {
  const needed = neededRuns(runs);
  if (runs.unreadable.length > 0) return [];
  return runs.all.map(({ run }) => run).filter((run) => runs.forgotten.has(run) && !needed.has(run));
}

/** Removes them; each is there, whole, or not at all. The newest first: no run ever lies on what is gone. */
export async function removeRuns(folder: VmFolder, runs: readonly string[]): Promise<void> {
  for (const run of runs.toReversed()) {
    await rename(folder.run(run), folder.gone(run));
    await syncPath(folder.path);
    await rm(folder.gone(run), { recursive: true, force: true });
    const booted = bootEndings.map((ending) => folder.booted(run, ending));
    for (const file of [folder.verified(run), ...booted, folder.forgotten(run)]) await rm(file, { force: true });
  }
  if (runs.length > 0) await syncPath(folder.path);
}
