// A snapshot set in words: after it was made, and for `show`.
import type { Manifest } from '../../host/sets/manifest.js';
import { timeline } from './timeline.js';

/** Rows. */
export function renderManifest(manifest: Manifest): string[] {
  const { set, state, level, required, timings, disks, leftOut, evidence, guest, vm, saved = [] } = manifest;
  const { pauseWindowMs, frozenWindowMs, cutMs } = timings;
  return [
    `snapshot set ${set} of ${vm.name}: ${state}, consistency level ${level}${level === required ? '' : ` (asked for: ${required})`}`,
    ...(guest === undefined ? [] : timeline(guest).map((line) => `  ${line}`)),
    `  cut ${ms(cutMs)} (${disks.length} disks, one transaction), frozen window ${ms(frozenWindowMs)}, pause window ${ms(pauseWindowMs)}`,
    '  evidence:',
    ...evidence.map((sentence) => `    - ${sentence}`),
    '  disks:',
    ...disks.map(
      ({ id, level: own, base, overlay, merged }) =>
        `    ${id}: ${own}; ${merged ? `merged back into ${base.file}` : `${base.file} (${base.format}) holds the cut, the VM writes to ${overlay.file}`}`,
    ),
    ...(saved.length === 0 ? [] : ['  saved beside the disks, in the folder of the set:']),
    ...saved.map(({ name, what, from, size, copied }) => {
      const source = from === undefined ? what : `${what}, ${from}`;
      return `    ${name}: ${source} (${size} bytes, copied ${copied})`;
    }),
    ...leftOut.map(({ what, reason }) => `  left out: ${what}: ${reason}`),
    ...(guest?.skipped ?? []).map(({ what, reason }) => `  skipped in the guest: ${what}: ${reason}`),
    ...(manifest.revertedAt === undefined ? [] : [`  reverted at ${manifest.revertedAt}`]),
    ...(manifest.error === undefined ? [] : [`  error: ${manifest.error}`]),
  ];
}

/** One line of `snapshot list`. */
export function renderLine({ set, state, level, createdAt, disks, timings }: Manifest): string {
  const window = timings.frozenWindowMs === undefined ? '' : `, frozen ${ms(timings.frozenWindowMs)}`;
  return `${set}  ${createdAt}  ${state}  ${level}  ${disks.length} disks${window}`;
}

function ms(value: number | undefined): string {
  return value === undefined ? 'none' : `${value.toFixed(1)} ms`;
}
