// Makes a Debian package of files, without debhelper. The same files give the same bytes, whatever the umask.
import { createHash } from 'node:crypto';
import { chmodSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { filledIn } from './payload.mjs';
import { out, root, run } from './run.mjs';

/**
 * Packs `payload` with the control file and the scripts that are in `controlFolder`, into build/`file`. What stands
 * between @ in a script is a file of `scripts`. `compress`: what dpkg-deb calls it.
 */
export function packDeb(payload, { file, controlFolder, scripts, compress }) {
  const { tree, placed } = payload;
  const path = (target) => join(tree, target);
  const sizeKiB = placed.reduce((sum, { target }) => sum + Math.ceil(statSync(path(target)).size / 1024), 0);
  const sums = placed.map(({ target }) => {
    return `${createHash('md5')
      .update(readFileSync(path(target)))
      .digest('hex')}  ${target}\n`;
  });
  const packing = `${tree}-deb`;
  rmSync(packing, { recursive: true, force: true });
  // Files of 100 MB: by reference where the filesystem can.
  run('cp', ['-a', '--reflink=auto', tree, packing]);
  const write = (text, name, mode) => {
    writeFileSync(join(packing, 'DEBIAN', name), text);
    chmodSync(join(packing, 'DEBIAN', name), mode);
  };
  const read = (name) => readFileSync(join(root, controlFolder, name), 'utf8');
  mkdirSync(join(packing, 'DEBIAN'));
  chmodSync(join(packing, 'DEBIAN'), 0o755);
  write(sums.sort().join(''), 'md5sums', 0o644);
  write(filledIn(read('control'), { values: { size: String(sizeKiB) } }), 'control', 0o644);
  for (const script of ['postinst', 'prerm', 'postrm'])
    write(filledIn(read(script), { folder: scripts }), script, 0o755);
  const env = { ...process.env, SOURCE_DATE_EPOCH: '0' };
  run('dpkg-deb', ['--build', '--root-owner-group', `-Z${compress}`, packing, join(out, file)], { env });
  rmSync(packing, { recursive: true });
}
