// The files of a package, before it is known what kind of package it will be: deb.mjs and rpm.mjs pack them.
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { out, root, version } from './run.mjs';

/** Files that are being put together; `name` is their folder below build/ until they are packed. */
export function startPayload(name) {
  const tree = join(out, name);
  rmSync(tree, { recursive: true, force: true });
  makeFolder(tree, 0o755);
  const placed = [];
  const folders = [];
  const links = [];

  const makeAbove = (target) => {
    if (dirname(target) !== '.') makeAbove(dirname(target));
    const path = join(tree, target);
    if (!existsSync(path)) makeFolder(path, 0o755);
  };
  /** Makes an empty folder that the package owns, and those above. */
  const folder = (target, mode = 0o755) => {
    makeAbove(target);
    chmodSync(join(tree, target), mode);
    folders.push({ target, mode });
  };
  const place = (target, mode, make) => {
    makeAbove(dirname(target));
    make(join(tree, target));
    chmodSync(join(tree, target), mode);
    placed.push({ target, mode });
  };
  /** Copies a file of the project. */
  const put = (source, target, mode = 0o644) => {
    place(target, mode, (file) => copyFileSync(join(root, source), file));
  };
  const write = (text, target, mode = 0o644) => {
    place(target, mode, (file) => writeFileSync(file, text));
  };
  /** Makes a symbolic link to `to`, as seen from where it lies. */
  const link = (to, target) => {
    makeAbove(dirname(target));
    symlinkSync(to, join(tree, target));
    links.push(target);
  };
  return {
    name,
    tree,
    /** What was placed, in its order. */
    placed,
    folders,
    links,
    link,
    folder,
    put,
    write,
    /** Compressed as Debian wants manual pages and changelogs. */
    putCompressed: (source, target) => {
      write(gzipSync(readFileSync(join(root, source)), { level: 9 }), `${target}.gz`);
    },
    remove: () => {
      rmSync(tree, { recursive: true });
    },
  };
}

/** `text` with what stands between @ replaced: by `values`, by the scripts in `folder`, by the version. */
export function filledIn(text, { values = {}, folder }) {
  return text.replaceAll(/@([a-z-]+)@/g, (found, name) => {
    if (name === 'version') return version;
    if (Object.hasOwn(values, name)) return values[name];
    const script = folder === undefined ? '' : join(root, folder, name);
    if (!existsSync(script)) throw new Error(`${found}: expected a value or ${script}, found none`);
    return readFileSync(script, 'utf8').trimEnd();
  });
}

function makeFolder(path, mode) {
  mkdirSync(path);
  chmodSync(path, mode);
}
