// What the tool says of a VM's sets, as a person reads it: which disks a set claims to hold at the cut, and which files the
// VM is to be started from.
import { statSync, realpathSync } from 'node:fs';
import * as v from 'valibot';
import { askTool, type Call } from './tool.js';

const layerSchema = v.object({ file: v.string(), format: v.string() });
const shownSchema = v.object({
  set: v.string(),
  id: v.string(),
  state: v.string(),
  createdAt: v.string(),
  level: v.string(),
  disks: v.array(
    v.object({
      id: v.string(),
      base: layerSchema,
      overlay: layerSchema,
      level: v.string(),
      merged: v.boolean(),
      pivoted: v.optional(v.boolean()),
      pivoting: v.optional(v.boolean()),
      newest: v.optional(v.object({ layer: v.picklist(['overlay', 'base']) })),
    }),
  ),
});
/** A set, and the name of the VM under which it is known. */
export type ShownSet = v.InferOutput<typeof shownSchema> & { readonly vm: string };
export type ShownDisk = ShownSet['disks'][number];

const listSchema = v.object({
  sets: v.array(v.object({ set: v.string() })),
  unreadable: v.optional(v.array(v.object({ set: v.string(), reason: v.string() })), []),
});

export interface Shown {
  /** Oldest first. */
  readonly sets: readonly ShownSet[];
  /** Names of sets that are there and cannot be read. */
  readonly unreadable: readonly string[];
  /** Calls that did not do what they were asked for. */
  readonly failed: readonly Call[];
}

/** All sets of a VM, under each of its names. `options`: the words that say which VM, without its name. */
export async function showSets(names: readonly string[], options: readonly string[]): Promise<Shown> {
  const sets: ShownSet[] = [];
  const unreadable: string[] = [];
  const failed: Call[] = [];
  for (const vm of names) {
    const list = await askTool(['snapshot', 'list', '--vm', vm, ...options]);
    const listed = v.safeParse(listSchema, list.json);
    if (list.code !== 0 || !listed.success) {
      failed.push(list);
      continue;
    }
    unreadable.push(...listed.output.unreadable.map(({ set }) => set));
    for (const { set } of listed.output.sets) {
      const show = await askTool(['snapshot', 'show', set, '--vm', vm, ...options]);
      const shown = v.safeParse(shownSchema, show.json);
      if (show.code !== 0 || !shown.success) failed.push(show);
      else if (!sets.some(({ id }) => id === shown.output.id)) sets.push({ ...shown.output, vm });
    }
  }
  return { sets: sets.sort((a, b) => a.createdAt.localeCompare(b.createdAt)), unreadable, failed };
}

/** States in which nothing was cut, or nothing is left of it. */
const EMPTY = ['creating', 'cutting', 'failed', 'deleting'];

/** The disks of which the set says that their base holds the cut: whoever reads its level believes that. */
export function claimedDisks({ state, level, disks }: ShownSet): readonly ShownDisk[] {
  if (EMPTY.includes(state) || level === 'none') return [];
  return disks.filter((disk) => disk.level !== 'none');
}

/**
 * Where the newest data of the disk with this original image is, by the states of the sets; a person who finds a disk
 * of which only the times of two files tell takes the newer file. Where two sets were cut over one image, since the VM was
 * started from it again after the first, the later one speaks for the disk, as it does in start-args.
 */
export function newestFile(original: string, sets: readonly ShownSet[]): { file: string; format: string | undefined } {
  let at: { file: string; format: string | undefined } = { file: realpathSync(original), format: undefined };
  const seen = new Set<string>();
  for (;;) {
    const step = sets
      .filter(({ id, state }) => !seen.has(id) && ['cut', 'committing', 'reverting'].includes(state))
      .flatMap(({ id, disks }) => disks.map((disk) => ({ id, disk })))
      .findLast(({ disk }) => realOrSame(disk.base.file) === at.file && liesAbove(disk));
    if (step === undefined) return at;
    seen.add(step.id);
    at = { file: realOrSame(step.disk.overlay.file), format: step.disk.overlay.format };
  }
}

function liesAbove({ level, merged, pivoted, pivoting, newest, base, overlay }: ShownDisk): boolean {
  if (newest !== undefined) return newest.layer === 'overlay';
  if (merged || pivoted === true || level === 'none') return false;
  return pivoting !== true || timeOf(overlay.file) >= timeOf(base.file);
}

function timeOf(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

export function realOrSame(file: string): string {
  try {
    return realpathSync(file);
  } catch {
    return file;
  }
}

const findingSchema = v.object({
  vm: v.string(),
  set: v.optional(v.string()),
  kind: v.string(),
  status: v.string(),
  found: v.string(),
  did: v.string(),
  commands: v.array(v.string()),
});
export type ToldFinding = v.InferOutput<typeof findingSchema>;

/** Undefined if it is not recover's answer. */
export function findingsOf({ json }: Call): readonly ToldFinding[] | undefined {
  const parsed = v.safeParse(v.object({ findings: v.array(findingSchema) }), json);
  return parsed.success ? parsed.output.findings : undefined;
}
