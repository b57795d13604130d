// The recipes of vm-images/, which the package ships: the same folder seen from src/ and from dist/.
import { readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import * as v from 'valibot';
import { UsageError } from '../errors.js';

const FOLDER = fileURLToPath(new URL('../../vm-images/', import.meta.url));
/** The folder that all recipes of guests share. */
const GUEST = 'guest';
const RECIPES = 'recipes';

/** Kernels that user-mode guests can be booted with. */
export const KERNEL_VERSIONS = ['6.1', '6.12', '7.2'] as const;
export type KernelVersion = (typeof KERNEL_VERSIONS)[number];

const Recipe = v.strictObject({
  /** Debian's suite: all packages come from it. */
  suite: v.string(),
  packages: v.array(v.string()),
  /** Loaded by the initrd of a QEMU guest, in this order. */
  initrdModules: v.array(v.string()),
  /** The kernel of a user-mode guest that is not told another. A QEMU guest has the one of the suite. */
  kernel: v.picklist(KERNEL_VERSIONS),
  /** Its major version, as in the names of Debian's packages. */
  postgresql: v.string(),
  /** Ports that a QEMU guest is reached at from the host's loopback. */
  ports: v.array(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65535))),
  /** The first one is the root disk. */
  disks: v.array(
    v.strictObject({
      name: v.string(),
      filesystem: v.picklist(['ext4', 'xfs']),
      sizeMiB: v.number(),
      label: v.string(),
    }),
  ),
});
export type Recipe = v.InferOutput<typeof Recipe>;

/** A file or folder of vm-images/. */
export function recipeFile(name: string): string {
  return path.join(FOLDER, name);
}

/** The folder that all guests are made from: scripts, files, the initrd. */
export function guestFolder(): string {
  return recipeFile(GUEST);
}

/** Throws UsageError `E_RECIPE`, with the names there are, when there is no such recipe. */
export async function readRecipe(name: string): Promise<Recipe> {
  const names = (await readdir(recipeFile(RECIPES))).map((file) => path.basename(file, '.json'));
  if (!names.includes(name)) {
    throw new UsageError('E_RECIPE', `guest image: expected one of ${names.join(', ')}, found ${name}`);
  }
  return v.parse(Recipe, JSON.parse(await readFile(recipeFile(`${RECIPES}/${name}.json`), 'utf8')));
}

/** All that a guest is made of but the recipe itself: path, executable bit and content of each file. */
export async function guestParts(): Promise<readonly (string | Uint8Array)[]> {
  const parts: (string | Uint8Array)[] = [];
  const entries = await readdir(guestFolder(), { recursive: true });
  for (const name of entries.sort()) {
    const file = path.join(guestFolder(), name);
    const info = await stat(file);
    if (!info.isFile()) continue;
    parts.push(name, (info.mode & 0o100) === 0 ? '-' : 'x', await readFile(file));
  }
  return parts;
}
