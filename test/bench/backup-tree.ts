// bench -- backup-tree: how large increments are when a source tree is unpacked, and when it is patched, as they
// are and compressed. The tree is this project's node_modules; a user-mode guest writes it to an ext4, and what changed on
// that disk is written to a QEMU's, by which it is backed up.
import { mkdir, open, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { bootGuest } from '../../src/testing/index.js';
import { CutHarness } from '../support/cut-harness.js';
import { backUp } from './backup-plain.js';
import { measure, type Row } from './table.js';

const MEBIBYTE = 1024 * 1024;
const DISK_MEBIBYTES = 1024;
const CLUSTER = 64 * 1024;
const TREE = fileURLToPath(new URL('../../node_modules', import.meta.url));
const STAGES = ['made', 'unpacked', 'patched'] as const;
/** Every tenth file has each of its lines with an `import` in it changed. */
const PATCH = `find /mnt -type f -name '*.[jt]s' | sort | awk 'NR % 10 == 0' | xargs -d '\\n' sed -i 's/import/IMPORT/'`;

/** Sizes in the repository, in MiB; beside each how much of the disk had changed, in clusters. */
export async function backupOfTree(): Promise<readonly Row[]> {
  const disk = { name: 'data0', format: 'qcow2', megabytes: DISK_MEBIBYTES } as const;
  await using at = await CutHarness.start([disk]);
  const folder = at.folder.path('stages');
  await mkdir(folder);
  await writeStages(folder);
  const rows: Row[] = [];
  for (const [index, stage] of STAGES.entries()) {
    const changed = await replay(at, folder, index);
    if (index === 0) {
      for (const mode of ['', 'zstd']) await backUp(at, at.folder.path(`repository${mode}`), '--full', '--init');
      continue;
    }
    const sizes: number[] = [];
    for (const mode of ['', 'zstd']) {
      const more = mode === '' ? [] : ['--compress', mode];
      const made = await backUp(at, at.folder.path(`repository${mode}`), '--incremental', ...more);
      sizes.push((made.disks[0]?.file.size ?? NaN) / MEBIBYTE);
    }
    const [plain = NaN, packed = NaN] = sizes;
    rows.push(
      measure(`increment of a source tree ${stage}: changed clusters, MiB`, [(changed * CLUSTER) / MEBIBYTE], null),
      measure('  in the repository, MiB', [plain], null),
      measure('  in the repository with --compress zstd, MiB', [packed], null),
    );
  }
  return rows;
}

/** The disk after each stage, as files named after it. */
async function writeStages(folder: string): Promise<void> {
  await using guest = await bootGuest({ kind: 'user-mode' });
  const disk = await guest.addBlankDisk('tree', DISK_MEBIBYTES);
  const keep = async (stage: string): Promise<void> => {
    await guest.exec('umount /mnt');
    await execa('cp', ['--sparse=always', disk.file, path.join(folder, stage)]);
    await guest.exec(`mount ${disk.path} /mnt`);
  };
  await guest.exec(`mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 ${disk.path} && mount ${disk.path} /mnt`);
  await keep('made');
  await guest.copyIn([TREE], '/mnt');
  await keep('unpacked');
  await guest.exec(PATCH, { timeoutMs: 300_000 });
  await keep('patched');
}

/** Writes to the VM's disk what differs from the stage before. Gives the number of clusters. */
async function replay(at: CutHarness, folder: string, index: number): Promise<number> {
  const [now = '', before] = [STAGES[index], STAGES[index - 1]];
  const changed = await differing(path.join(folder, now), before === undefined ? undefined : path.join(folder, before));
  const { control } = at.vm;
  const parts = at.folder.path('parts');
  await mkdir(parts);
  const source = await open(path.join(folder, now));
  try {
    const block = Buffer.alloc(CLUSTER);
    for (const cluster of changed) {
      await source.read(block, 0, CLUSTER, cluster * CLUSTER);
      const part = path.join(parts, String(cluster));
      await writeFile(part, block);
      const line = `qemu-io -d /machine/peripheral/data0/virtio-backend "write -q -s ${part} ${cluster * CLUSTER} ${CLUSTER}"`;
      const said = await control.execute('human-monitor-command', { 'command-line': line });
      if (said !== '') throw new Error(`${line}: ${String(said)}`);
      await rm(part);
    }
  } finally {
    await source.close();
  }
  await rm(parts, { recursive: true });
  return changed.length;
}

async function differing(now: string, before: string | undefined): Promise<readonly number[]> {
  const files = await Promise.all([now, ...(before === undefined ? [] : [before])].map((file) => open(file)));
  try {
    const [a, b] = [Buffer.alloc(CLUSTER), Buffer.alloc(CLUSTER)];
    const found: number[] = [];
    for (let cluster = 0; cluster < (DISK_MEBIBYTES * MEBIBYTE) / CLUSTER; cluster++) {
      await files[0]?.read(a, 0, CLUSTER, cluster * CLUSTER);
      await files[1]?.read(b, 0, CLUSTER, cluster * CLUSTER);
      if (!a.equals(b)) found.push(cluster);
    }
    return found;
  } finally {
    for (const file of files) await file.close();
  }
}
