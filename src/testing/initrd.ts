// Packs an initrd: a small tree of files with busybox and an init. Images, user-mode kernels and the accelerator's probe
// need one.
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { UsageError } from '../errors.js';

const BUSYBOX = '/bin/busybox';

/**
 * Writes `target` from all that is below `tree` (made if need be), with busybox and `/init` of the text given added to it.
 * `compressor` is a command line that reads and writes. Throws UsageError `E_BUSYBOX` when the busybox of this machine is not
 * the static one: the kernel would only say that there is no init.
 */
export async function packInitrd(target: string, tree: string, init: string, compressor = 'gzip -n -6'): Promise<void> {
  await mkdir(path.join(tree, 'bin'), { recursive: true });
  const busybox = await readFile(BUSYBOX);
  if (busybox.includes('/lib64/ld-linux')) {
    throw new UsageError(
      'E_BUSYBOX',
      `${BUSYBOX}: expected a static one (busybox-static), found one that needs libraries`,
    );
  }
  await writeFile(path.join(tree, 'bin/busybox'), busybox, { mode: 0o755 });
  await writeFile(path.join(tree, 'init'), init, { mode: 0o755 });
  const script = `find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 | ${compressor} >"$1"`;
  await execa('sh', ['-c', script, 'sh', path.resolve(target)], { cwd: tree, timeout: 60_000 });
}
