// Reads the runs of a VM in a repository. What cannot be read is told of, and counts as a run that is there: nothing it
// may lie on is removed.
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { describeError, isErrno, UsageError } from '../../errors.js';
import { runPattern } from '../images/run-file.js';
import { MANIFEST, type VmFolder } from './layout.js';
import { runManifestSchema, type RunManifest } from './run-manifest.js';

export interface Runs {
  /** The oldest first. Those that are forgotten are among them. */
  readonly all: readonly RunManifest[];
  /** Names of those that nobody wants any more. */
  readonly forgotten: ReadonlySet<string>;
  readonly unreadable: readonly { readonly run: string; readonly reason: string }[];
}

/** Throws a UsageError if the folder cannot be listed; none if it is not there. */
export async function readRuns(folder: VmFolder): Promise<Runs> {
  const all: RunManifest[] = [];
  const unreadable: { run: string; reason: string }[] = [];
  for (const run of (await names(folder.path)).filter((name) => runPattern.test(name))) {
    try {
      all.push(await readRun(folder, run));
    } catch (error) {
      unreadable.push({ run, reason: describeError(error) });
    }
  }
  all.sort((a, b) => a.number - b.number || a.run.localeCompare(b.run));
  return { all, forgotten: new Set(await names(folder.forgotten())), unreadable };
}

/** Those that somebody may want. */
export function wantedRuns({ all, forgotten }: Runs): RunManifest[] {
  return all.filter(({ run }) => !forgotten.has(run));
}

/** Throws a UsageError `E_NO_BACKUP` or `E_MANIFEST`. */
async function readRun(folder: VmFolder, run: string): Promise<RunManifest> {
  const file = join(folder.run(run), MANIFEST);
  let json: unknown;
  try {
    json = JSON.parse(await readFile(file, 'utf8'));
  } catch (cause) {
    throw new UsageError('E_MANIFEST', `cannot read ${file}`, { cause });
  }
  const parsed = v.safeParse(runManifestSchema, json);
  if (!parsed.success) {
    const [issue] = parsed.issues;
    throw new UsageError('E_MANIFEST', `${file}: ${v.getDotPath(issue) ?? 'the whole'}: ${issue.message}`);
  }
  if (parsed.output.run === run) return parsed.output;
  throw new UsageError('E_MANIFEST', `${file} is that of run ${parsed.output.run}: somebody renamed the folder`);
}

async function names(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (cause) {
    if (isErrno(cause, 'ENOENT')) return [];
    throw new UsageError('E_REPOSITORY', `cannot list ${path}`, { cause });
  }
}
