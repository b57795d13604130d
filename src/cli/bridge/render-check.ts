// Puts into words what `snapshot create --check` found.
import type { CreateCheck } from '../../host/create/create-check.js';

/** The rows to print. */
export function renderCheck({ vm, status, disks, leftOut, agent, level, rooms }: CreateCheck): string[] {
  return [
    `${vm} (${status}): ${disks.length} disks would be cut, level ${level.atMost} at most (${level.asked} asked for)`,
    `  because: ${level.why}`,
    `  agent: ${agent === undefined ? 'none' : `${agent.kind} ${agent.version}`}`,
    '  disks:',
    ...disks.map(({ id, file, format, below, dataFiles, encryption }) => {
      const more = [
        ...(encryption === undefined ? [] : [`encrypted (${encryption}), its overlay too`]),
        ...(below.length === 0 ? [] : [`over ${below.join(', ')}`]),
        ...(dataFiles.length === 0 ? [] : [`data in ${dataFiles.join(', ')}`]),
      ];
      return `    ${id}: ${file} (${format})${more.length === 0 ? '' : `, ${more.join(', ')}`}`;
    }),
    ...leftOut.map(({ what, reason }) => `  left out: ${what}: ${reason}`),
    ...rooms.map(({ folder, free, needed }) => {
      const enough = free >= needed ? 'enough' : 'TOO LITTLE';
      return `  space for overlays: ${folder}: ${mib(free)} free, ${mib(needed)} wanted: ${enough}`;
    }),
  ];
}

function mib(bytes: number): string {
  return `${Math.floor(bytes / 1024 / 1024)} MiB`;
}
