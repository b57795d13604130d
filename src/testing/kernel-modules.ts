// Finds kernel modules and what they depend on in a folder of Debian's packages, and unpacks them, compressed or not.
import { mkdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { BridgeError } from '../errors.js';

/** How a module is compressed, by the end of its file's name, and what undoes it. */
const UNPACKERS: Readonly<Record<string, string>> = { ko: 'cat', xz: 'xzcat', zst: 'zstdcat', gz: 'zcat' };

/** The name of a module: that of its file, without `.ko` and what follows. */
export function moduleName(file: string): string {
  return path.basename(file).replace(/\.ko(\.\w+)?$/, '');
}

/** True for the file of a module. */
export function isModule(file: string): boolean {
  return /\.ko(\.\w+)?$/.test(file);
}

/** Writes the module into a folder, uncompressed. Gives the file. Throws BridgeError `E_MODULE` for an unknown ending. */
export async function unpackModule(file: string, folder: string): Promise<string> {
  const end = path.extname(file).slice(1);
  const unpacker = UNPACKERS[end];
  if (unpacker === undefined) {
    throw new BridgeError('E_MODULE', `${file}: expected an end of ${Object.keys(UNPACKERS).join(', ')}, found ${end}`);
  }
  await mkdir(folder, { recursive: true });
  const target = path.join(folder, `${moduleName(file)}.ko`);
  await execa(unpacker, [file], { stdout: { file: target }, timeout: 60_000 });
  return target;
}

/**
 * The modules wanted and all that they depend on, as files relative to `folder` (`.../modules/VERSION`). Each of
 * `wanted` is a path below kernel/: a module without its end, or a folder with all that is in it. Throws BridgeError
 * `E_MODULE` if one is not there.
 */
export async function withDependencies(folder: string, wanted: readonly string[]): Promise<ReadonlySet<string>> {
  const index = await readFile(path.join(folder, 'modules.dep'), 'utf8');
  const chosen = new Set<string>();
  for (const name of wanted) {
    const lines = index
      .split('\n')
      .filter((line) => line.startsWith(`kernel/${name}/`) || line.startsWith(`kernel/${name}.ko`));
    if (lines.length === 0) throw new BridgeError('E_MODULE', `${folder}: expected a module ${name}, found none`);
    for (const file of lines.flatMap((line) => line.split(/[: ]+/).filter(Boolean))) chosen.add(file);
  }
  return chosen;
}
