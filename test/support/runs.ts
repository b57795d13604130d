// Records of backup runs, for tests of code that reads them.
import { mkdirSync, writeFileSync } from 'node:fs';
import type { VmFolder } from '../../src/host/repository/layout.js';
import type { RunDisk, RunManifest } from '../../src/host/repository/run-manifest.js';
import { manifest } from './manifests.js';

const SUM = '0'.repeat(128);

export function runDisk(id: string, over: Partial<RunDisk> = {}): RunDisk {
  return {
    device: '',
    id,
    serial: id,
    virtualSize: 1024,
    level: 'crash',
    evidence: [],
    kind: 'full',
    why: '',
    source: { file: `/img/${id}.qcow2`, format: 'qcow2' },
    file: { name: `${id}.qcow2`, size: 3, blake2b: SUM, extentBytes: 1, extents: [] },
    copiedBytes: 0,
    otherBitmaps: [],
    restore: '',
    ...over,
  };
}

/** The n-th run of a VM; `on`: the number of the run that each of its disks lies on. */
export function runOf(number: number, on?: number, over: Partial<RunManifest> = {}): RunManifest {
  const { pointVersion, vm, asked, required, level, evidence, leftOut, timings, monitorLog, versions } = manifest('s');
  const run = runNumbered(number);
  const base = on === undefined ? {} : { base: { run: runNumbered(on), name: 'data0.qcow2', blake2b: SUM } };
  const kind = on === undefined ? ('full' as const) : ('incremental' as const);
  return {
    format: 1,
    repository: '0a1b2c3d',
    run,
    id: run.slice(-8),
    number,
    createdAt: '2026-01-01T00:00:00.000Z',
    completedAt: '2026-01-01T00:00:01.000Z',
    pointVersion,
    ...{ vm, asked, required, level, evidence, leftOut, timings, monitorLog, versions },
    disks: [runDisk('data0', { kind, ...base, checkpoint: `fsb-0a1b2c3d-${run}-0` })],
    saved: [],
    transfer: { copyMs: 0, hashMs: 0 },
    ...over,
  };
}

export function runNumbered(number: number): string {
  return `20260101T00000${number}Z-0000000${number}`;
}

/** Puts their records, without the files that they name, into a VM's folder. */
export function storeRuns(folder: VmFolder, ...runs: readonly RunManifest[]): void {
  for (const manifest of runs) {
    mkdirSync(folder.run(manifest.run), { recursive: true });
    writeFileSync(`${folder.run(manifest.run)}/manifest.json`, JSON.stringify(manifest));
  }
}
