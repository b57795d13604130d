// Makes an initrd: a small tree of files, packed by cpio and gzip. Used by the image and by the accelerator's probe.
import { chmod, copyFile, mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';

const BUSYBOX = '/bin/busybox'; // Debian's busybox-static

/**
 * Writes `target`: busybox, `/init` with the text given, and `modules` (host files) under /modules, loaded in the order
 * of /modules/order by an init that wants them. `scratch` is an empty folder that the caller removes.
 */
export async function makeInitrd(
  target: string,
  scratch: string,
  init: string,
  modules: readonly string[],
): Promise<void> {
  await mkdir(path.join(scratch, 'bin'), { recursive: true });
  await mkdir(path.join(scratch, 'modules'));
  await copyFile(BUSYBOX, path.join(scratch, 'bin/busybox'));
  await chmod(path.join(scratch, 'bin/busybox'), 0o755);
  await writeFile(path.join(scratch, 'init'), init, { mode: 0o755 });
  for (const module of modules) await copyFile(module, path.join(scratch, 'modules', path.basename(module)));
  const order = modules.map((module) => `${path.basename(module)}\n`).join('');
  await writeFile(path.join(scratch, 'modules/order'), order);
  const script = 'find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 | gzip -n -6 >"$1"';
  await execa('sh', ['-c', script, 'sh', path.resolve(target)], { cwd: scratch, timeout: 60_000 });
}
