// Makes a Debian package of files, without debhelper. The same files give the same bytes, whatever the umask.
import { createHash } from 'node:crypto';
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { out, root, run, version } from './run.mjs';

/** A package that is being put together. `name` is its folder below build/ until it is packed. */
export function startDeb(name) {
  const tree = join(out, name);
  rmSync(tree, { recursive: true, force: true });
  makeFolder(tree, 0o755);
  const placed = [];

  /** Makes an empty folder, and those above. */
  const folder = (target, mode = 0o755) => {
    if (dirname(target) !== '.') folder(dirname(target));
    const path = join(tree, target);
    if (!existsSync(path)) makeFolder(path, mode);
  };
  const place = (target, mode, make) => {
    folder(dirname(target));
    make(join(tree, target));
    chmodSync(join(tree, target), mode);
    placed.push(target);
  };
  /** Copies a file of the project. */
  const put = (source, target, mode = 0o644) => {
    place(target, mode, (file) => copyFileSync(join(root, source), file));
  };
  const write = (text, target, mode = 0o644) => {
    place(target, mode, (file) => writeFileSync(file, text));
  };

  return {
    folder,
    put,
    write,
    /** Compressed as Debian wants manual pages and changelogs. */
    putCompressed: (source, target) => {
      write(gzipSync(readFileSync(join(root, source)), { level: 9 }), `${target}.gz`);
    },
    /**
     * Packs it with the control file and the scripts that are in `controlFolder`, into build/`file`.
     * `compress`: what dpkg-deb calls it.
     */
    pack: (file, controlFolder, compress) => {
      const path = (target) => join(tree, target);
      const sizeKiB = placed.reduce((sum, target) => sum + Math.ceil(statSync(path(target)).size / 1024), 0);
      const sums = placed.map((target) => {
        return `${createHash('md5')
          .update(readFileSync(path(target)))
          .digest('hex')}  ${target}\n`;
      });
      const control = readFileSync(join(root, controlFolder, 'control'), 'utf8');
      write(sums.sort().join(''), 'DEBIAN/md5sums');
      write(control.replace('@VERSION@', version).replace('@SIZE@', sizeKiB), 'DEBIAN/control');
      for (const script of ['postinst', 'prerm', 'postrm']) {
        put(`${controlFolder}/${script}`, `DEBIAN/${script}`, 0o755);
      }
      const env = { ...process.env, SOURCE_DATE_EPOCH: '0' };
      run('dpkg-deb', ['--build', '--root-owner-group', `-Z${compress}`, tree, join(out, file)], { env });
      rmSync(tree, { recursive: true });
    },
  };
}

function makeFolder(path, mode) {
  mkdirSync(path);
  chmodSync(path, mode);
}
