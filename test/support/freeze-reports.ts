// Freeze reports as an agent sends them, for tests of what the host makes of them.
import type { FilesystemReport, FreezeReport, WriterReport } from '../../src/consistency.js';

export function filesystemReport(
  mountpoint: string,
  serial: string,
  over: Partial<FilesystemReport> = {},
): FilesystemReport {
  return {
    mountpoint,
    type: 'ext4',
    source: '/dev/vda1',
    device: '254:1',
    disks: [{ serial }],
    concerned: true,
    held: 'frozen',
    sync: { startMs: 1, endMs: 5 },
    freeze: { startMs: 10, endMs: 12 },
    thaw: { startMs: 30, endMs: 31 },
    ...over,
  };
}

export function writerReport(name: string, over: Partial<WriterReport> = {}): WriterReport {
  return {
    name,
    path: `/etc/fsfreeze-bridge/fsfreeze-hook.d/${name}`,
    kind: 'described',
    required: true,
    rank: 50,
    guarantee: 'recoverable',
    verdict: 'verified',
    phases: [
      { phase: 'prepare', startMs: 0, endMs: 6, exitCode: 0, timedOut: false },
      { phase: 'freeze', startMs: 7, endMs: 9, exitCode: 0, timedOut: false },
      { phase: 'thaw', startMs: 32, endMs: 35, exitCode: 0, timedOut: false },
    ],
    ...over,
  };
}

/** Thawed in order, level filesystem. */
export function freezeReport(over: Partial<FreezeReport> = {}): FreezeReport {
  return {
    session: 'session-1',
    requester: 'test',
    state: 'thawed',
    outcome: 'ok',
    level: 'filesystem',
    evidence: ['all filesystems were frozen and thawed by this session'],
    filesystems: [],
    writers: [],
    skipped: [],
    steps: [{ step: 'freeze', startMs: 10, endMs: 12 }],
    leaseMs: 10_000,
    pauseWindowMs: 28,
    frozenWindowMs: 21,
    ...over,
  };
}
