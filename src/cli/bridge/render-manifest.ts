// Puts a snapshot set into words: after it was made, for `show`, and for `list`.
import type { ConsistencyLevel } from '../../consistency.js';
import type { Manifest, ManifestDisk } from '../../host/sets/manifest.js';
import type { DiskView, SetView } from '../../host/sets/set-view.js';
import { timeline } from './timeline.js';

/** The rows of a set that was made just now. */
export function renderManifest(manifest: Manifest): string[] {
  return render(manifest, manifest.level, (disk) => {
    const { level, base, overlay } = disk;
    return `${level}; ${base.file} (${base.format}) holds the cut, the VM writes to ${overlay.file}`;
  });
}

/** The rows of a set as it is now. */
export function renderView({ manifest, level, disks, notes }: SetView): string[] {
  const rows = render(manifest, level, ({ base }, index) => {
    const view = disks[index];
    if (view === undefined) return base.file;
    const cut = cutText(view, `${base.file} (${base.format})`);
    const newest = view.newest === undefined ? 'its newest image is not known' : `newest image ${view.newest.file}`;
    const running = view.inUse === undefined ? '' : `, the VM uses its ${view.inUse}`;
    return [`${view.level}; ${cut}; ${newest}${running}`, ...view.notes].join('; ');
  });
  return [...rows, ...notes.map((note) => `  now: ${note}`)];
}

function cutText({ holdsCut, isCutKnown }: DiskView, base: string): string {
  if (holdsCut) return isCutKnown ? `${base} holds the cut` : `whether ${base} holds the cut is not known`;
  return isCutKnown ? 'the cut is gone' : `${base} cannot be looked at`;
}

function render(
  manifest: Manifest,
  now: ConsistencyLevel,
  about: (disk: ManifestDisk, index: number) => string,
): string[] {
  const { set, state, level, required, timings, disks, leftOut, evidence, guest, vm, saved = [] } = manifest;
  const { pauseWindowMs, frozenWindowMs, cutMs } = timings;
  const atCut = level === now ? '' : ` now (${level} at the cut)`;
  return [
    `snapshot set ${set} of ${vm.name}: ${state}, consistency level ${now}${atCut}${now === required ? '' : ` (asked for: ${required})`}`,
    ...(guest === undefined ? [] : timeline(guest).map((line) => `  ${line}`)),
    `  cut ${ms(cutMs)} (${disks.length} disks, one transaction), frozen window ${ms(frozenWindowMs)}, pause window ${ms(pauseWindowMs)}`,
    '  evidence:',
    ...evidence.map((sentence) => `    - ${sentence}`),
    '  disks:',
    ...disks.map((disk, index) => `    ${disk.id}: ${about(disk, index)}`),
    ...(saved.length === 0 ? [] : ['  saved beside the disks, in the folder of the set:']),
    ...saved.map(({ name, what, from, size, copied }) => {
      const source = from === undefined ? what : `${what}, ${from}`;
      return `    ${name}: ${source} (${size} bytes, copied ${copied})`;
    }),
    ...completionRow(manifest),
    ...leftOut.map(({ what, reason }) => `  left out: ${what}: ${reason}`),
    ...(guest?.skipped ?? []).map(({ what, reason }) => `  skipped in the guest: ${what}: ${reason}`),
    ...(manifest.revertedAt === undefined ? [] : [`  reverted at ${manifest.revertedAt}`]),
    ...(manifest.error === undefined ? [] : [`  error: ${manifest.error}`]),
  ];
}

function completionRow({ completion }: Manifest): string[] {
  if (completion === undefined || (completion.writers.length === 0 && completion.error === undefined)) return [];
  const { writers, outcome, error } = completion;
  const told = writers.map(({ name, told: word, result }) => `${name} (${word}, ${result})`);
  const whom = error === undefined ? told.join(', ') : error;
  return [`  told the guest's writers that it is recorded (${outcome}): ${whom}`];
}

/** The row of a set in `snapshot list`. */
export function renderLine({ manifest, level, notes }: SetView): string {
  const { set, state, createdAt, disks, timings } = manifest;
  const window = timings.frozenWindowMs === undefined ? '' : `, frozen ${ms(timings.frozenWindowMs)}`;
  const more = notes.length === 0 ? '' : `  (${notes.join('; ')})`;
  return `${set}  ${createdAt}  ${state}  ${level}  ${disks.length} disks${window}${more}`;
}

function ms(value: number | undefined): string {
  return value === undefined ? 'none' : `${value.toFixed(1)} ms`;
}
