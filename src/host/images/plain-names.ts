// Gives each disk's files a name of their own, in letters that need no quoting.
import { parse } from 'node:path';

export interface NamedDisk {
  readonly id: string;
  /** Its image, of whose name one is made if it has no id. */
  readonly file: string;
}

/** Never the same twice, nor `manifest`; without dots: what follows one tells the files of a disk apart. */
export function plainNames(disks: readonly NamedDisk[]): string[] {
  const taken = new Set<string>(['manifest']);
  return disks.map(({ id, file }) => {
    const plain = (id === '' ? parse(file).name : id).replace(/[^A-Za-z0-9_-]+/g, '_').replace(/^-+/, '') || 'disk';
    let name = plain;
    for (let count = 1; taken.has(name); count++) name = `${plain}-${count}`;
    taken.add(name);
    return name;
  });
}
