// bench -- backup-plain: what the copying of a backup costs on a plain QEMU (backup-copying.ts).
import { mkdir } from 'node:fs/promises';
import type { RunManifest } from '../../src/host/repository/run-manifest.js';
import { CutHarness } from '../support/cut-harness.js';
import { DISK_MEGABYTES, fillDisk, measureCopying } from './backup-copying.js';
import type { Row } from './table.js';

export async function backupOfPlain(): Promise<readonly Row[]> {
  const disk = { name: 'data0', format: 'qcow2', megabytes: DISK_MEGABYTES } as const;
  await using at = await CutHarness.start([disk]);
  const image = at.folder.path('images/data0.qcow2');
  await at.vm.quit();
  await fillDisk(image);
  await at.start([{ ...disk, file: image }]);
  const folder = at.folder.path('backups');
  await mkdir(folder);
  return await measureCopying({
    ...{ label: 'plain QEMU', image, folder, pid: at.vm.pid },
    write: async (pattern, offsetKilobytes, kilobytes) => {
      await at.vm.write(disk.name, pattern, offsetKilobytes, kilobytes);
    },
    backUp: async (repository, ...words) => await backUp(at, repository, ...words),
  });
}

/** As users run it; its time counts as a whole. */
export async function backUp(at: CutHarness, repository: string, ...words: readonly string[]): Promise<RunManifest> {
  const { stdout, stderr, exitCode } = await at.spawn(['backup', 'run', '--to', repository, ...words]);
  if (exitCode !== 0) throw new Error(`backup run: exit ${exitCode ?? '-'}: ${stderr}`);
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as RunManifest;
}
