// What the host can say of a cut disk without a guest: is the journal of its ext4 clean, do the file system checkers
// find nothing. Disks are looked at as raw copies; the cut itself is only read.
import path from 'node:path';
import { execa } from 'execa';
import type { DiskFile } from '../../src/testing/disks.js';

const LIMIT_MS = 120_000;

/** Copies a disk (with all its layers) to a sparse raw file. */
export async function rawCopy({ file, format }: DiskFile, dir: string, name: string): Promise<string> {
  const copy = path.join(dir, `${name}.raw`);
  await execa('qemu-img', ['convert', '-f', format, '-O', 'raw', file, copy], { timeout: LIMIT_MS });
  return copy;
}

/** Whether an ext4 would replay its journal at the next mount: it was cut while its transactions were under way. */
export async function needsRecovery(raw: string): Promise<boolean> {
  const { stdout } = await execa('dumpe2fs', ['-h', raw], { timeout: LIMIT_MS, env: { LC_ALL: 'C' } });
  const features = /^Filesystem features:\s+(.*)$/m.exec(stdout)?.[1];
  if (features === undefined) throw new Error(`dumpe2fs: expected a line "Filesystem features", found: ${stdout}`);
  return features.split(' ').includes('needs_recovery');
}

/** What the checkers say against an unmounted ext4 and xfs; empty if both exit 0. Nothing is repaired. */
export async function faultsOf(ext4: string, xfs: string): Promise<readonly string[]> {
  const checks = [
    ['e2fsck', '-fn', ext4],
    ['xfs_repair', '-n', '-f', xfs],
  ] as const;
  const faults: string[] = [];
  for (const [command, ...args] of checks) {
    const { exitCode, all } = await execa(command, args, { timeout: LIMIT_MS, reject: false, all: true });
    if (exitCode !== 0) faults.push(`${command} exits ${String(exitCode)}: ${all}`);
  }
  return faults;
}
