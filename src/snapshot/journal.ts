// Notes what a run makes before it is made, on tmpfs: so whatever instant the run dies at, gc knows what to undo. After
// a reboot the notes are gone with the mounts; what providers made is found by its tags then.
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { consistencyLevelSchema } from '../consistency.js';
import { namesIn, readText } from '../linux/kernel-values.js';
import { processStat, stillRuns, type ProcessId } from '../linux/process-stat.js';

const RECORD = 'journal.json';

const ways = ['atomic', 'per-volume', 'bind', 'live'] as const;
/**
 * atomic       of the same instant as every other that is atomic
 * per-volume   of an instant of its own
 * bind         data that is not cut: shown as it is, and changing
 * live         the kernel's or in memory: shown as it is, and nothing that a backup could save
 */
export type Way = (typeof ways)[number];

const sourceSchema = v.object({
  at: v.string(),
  way: v.picklist(ways),
  level: consistencyLevelSchema,
  /** Absent if it is bound. */
  provider: v.optional(v.string()),
  snapshot: v.optional(v.string()),
  /** Node in /dev, once it is there. */
  device: v.optional(v.string()),
  cowBytes: v.optional(v.number()),
  /** Why it is not cut. */
  reason: v.optional(v.string()),
});
/** How one source of a run is shown. */
export type SourceResult = v.InferOutput<typeof sourceSchema>;

const processSchema = v.object({ pid: v.number(), startTime: v.string() });

const recordSchema = v.object({
  run: v.string(),
  kind: v.picklist(['exec', 'tree']),
  /**
   * `lost`: nothing of it is left but that its snapshots were lost while they were read; whoever lets it go is told.
   * `reverting`: its holder is to leave the snapshots to whoever merges them.
   */
  state: v.picklist(['making', 'held', 'ending', 'reverting', 'lost']),
  /** It is let go by name, not by the end of its standard input. */
  isDetached: v.boolean(),
  holder: processSchema,
  /** The command that reads the snapshots; absent before it is started. */
  command: v.optional(processSchema),
  /** Wall clock, for people. */
  begun: v.string(),
  paths: v.array(v.string()),
  /** Where the tree is shown; absent if it is only in a namespace of its own. */
  target: v.optional(v.string()),
  level: v.optional(consistencyLevelSchema),
  /** Folder of what writers left for whoever keeps the snapshot, if they left anything: `WRITER/NAME`. */
  artefacts: v.optional(v.string()),
  /** Why its snapshots were lost, if they were. */
  lost: v.optional(v.string()),
  evidence: v.array(v.string()),
  sources: v.array(sourceSchema),
  /** What providers make, noted before. */
  snapshots: v.array(v.object({ provider: v.string(), name: v.string(), of: v.string() })),
  /** Mount points of ours in the machine's own namespace, noted before, in the order they are made. */
  mounts: v.array(v.string()),
});
export type RunRecord = v.InferOutput<typeof recordSchema>;

export class Journal {
  readonly #folder: string;

  /** `folder`: on tmpfs, root's alone. */
  constructor(folder: string) {
    this.#folder = folder;
  }

  /** A run's own folder: its notes, and the places where its snapshots are mounted first. */
  folderOf(run: string): string {
    return join(this.#folder, run);
  }

  /** A run's folder appears with its notes in it: one without notes is of a run that is over. */
  begin(record: RunRecord): void {
    const made = join(this.#folder, `.${record.run}`);
    mkdirSync(made, { recursive: true, mode: 0o700 });
    writeRecord(made, record);
    renameSync(made, this.folderOf(record.run));
  }

  update(record: RunRecord): void {
    writeRecord(this.folderOf(record.run), record);
  }

  /** Undefined if there is no such run, or its notes cannot be read. */
  read(run: string): RunRecord | undefined {
    const text = readText(join(this.folderOf(run), RECORD));
    if (text === undefined) return undefined;
    const result = v.safeParse(v.pipe(v.string(), v.parseJson(), recordSchema), text);
    return result.success ? result.output : undefined;
  }

  /** Ids of all runs that have a folder. */
  runs(): readonly string[] {
    return namesIn(this.#folder).filter((name) => !name.startsWith('.'));
  }

  /** There are notes, and nobody knows what they say: of another version of this program, perhaps. */
  isUnreadable(run: string): boolean {
    return this.read(run) === undefined && existsSync(join(this.folderOf(run), RECORD));
  }

  /** Nothing is left of it. What the caller of a holder that went its own way was not told yet is kept. */
  settle(record: RunRecord): void {
    if (record.lost === undefined || !record.isDetached) this.forget(record.run);
    else this.update({ ...record, state: 'lost', snapshots: [], mounts: [] });
  }

  /** Once nothing of it is left, and all is told. */
  forget(run: string): void {
    rmSync(this.folderOf(run), { recursive: true, force: true });
  }
}

function writeRecord(folder: string, record: RunRecord): void {
  const file = join(folder, RECORD);
  writeFileSync(`${file}.new`, JSON.stringify(record, null, 2), { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

/** Its holder is there: nobody else may touch what it made. */
export function isHeld({ holder }: Pick<RunRecord, 'holder'>): boolean {
  return stillRuns(holder);
}

export function processNote(pid: number): ProcessId {
  return { pid, startTime: processStat(pid)?.startTime ?? '' };
}
