import { describe, expect, test } from 'vitest';
import { timeline } from '../../../../src/cli/bridge/timeline.js';
import { filesystemReport, freezeReport, writerReport } from '../../../support/freeze-reports.js';

describe('timeline', () => {
  const report = freezeReport({
    filesystems: [
      filesystemReport('/', 'R'),
      filesystemReport('/boot/efi', 'R', {
        held: 'synced',
        type: 'vfat',
        freeze: { startMs: 11, endMs: 11 },
        thaw: { startMs: 29, endMs: 29 },
      }),
      filesystemReport('/media', 'U', { concerned: false }),
    ],
    writers: [writerReport('50-postgresql'), writerReport('60-idle', { verdict: 'not-applicable' })],
  });

  test('draws one bar for each writer and filesystem concerned, on one scale', () => {
    const lines = timeline(report);
    expect(lines).toMatchInlineSnapshot(`
      [
        "                             |0                                        28.0 ms|",
        "writer 50-postgresql         |>>>========================================<<<<<| held 28.0 ms, verified, prepared in 6.0 ms",
        "/ (ext4)                     |     >>>################################<       | 21.0 ms, frozen, synced in 4.0 ms",
        "/boot/efi (vfat)             |       ###############################          | 18.0 ms, synced, synced in 4.0 ms",
        "                              > freezing  = held  # frozen  < letting go",
      ]
    `);
  });

  test('draws nothing where the guest told no times', () => {
    expect(timeline(freezeReport())).toEqual([]);
  });

  test('prints no escapes of the guest, and keeps long names in their column', () => {
    const mountpoint = `/\u001b[31m${'x'.repeat(60)}`;
    const lines = timeline(
      freezeReport({ filesystems: [filesystemReport(mountpoint, 'R', { reason: '\u001b]0;t' })] }),
    );
    expect(lines.join('')).not.toContain('\u001b');
    expect(new Set(lines.slice(0, 2).map((line) => line.indexOf('|')))).toEqual(new Set([29]));
  });
});
