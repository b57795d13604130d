// A manifest of one disk, cut, for tests of what is done with sets.
import type { Manifest } from '../../src/host/sets/manifest.js';

export function manifest(
  set: string,
  createdAt = '2026-01-01T00:00:00Z',
  base = '/img/a',
  overlay = `/img/a.${set}`,
): Manifest {
  return {
    format: 1,
    set,
    id: set,
    state: 'cut',
    createdAt,
    changedAt: createdAt,
    vm: { name: 'vm1', qmp: '/q', status: 'running' },
    asked: 'auto',
    required: 'filesystem',
    level: 'filesystem',
    evidence: [],
    disks: [
      {
        device: '',
        id: 'vd0',
        virtualSize: 1,
        base: { node: 'a', file: base, format: 'raw' },
        overlay: { node: `fsb-${set}`, file: overlay, format: 'qcow2' },
        level: 'filesystem',
        evidence: [],
        merged: false,
      },
    ],
    leftOut: [],
    timings: { steps: [], marks: {} },
    monitorLog: [],
    versions: { tool: '1', node: '20', qemu: '7.2' },
  };
}
