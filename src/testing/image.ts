// The guest's image: read from the recipe in vm-images/guest, found in the cache or built there (image-build.ts).
import { randomUUID } from 'node:crypto';
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import * as v from 'valibot';
import { cached, hasUsers, keyOf, prune } from './cache.js';
import type { DiskFile } from './disks.js';
import { buildImage } from './image-build.js';
import { step } from './progress.js';

/** Changes when image-build.ts makes something else of the same recipe. */
const BUILDER_VERSION = '2';
const BUILD_ID = 'build-id';
const BUILD_LIMIT_MS = 360_000;

const Recipe = v.strictObject({
  suite: v.string(),
  packages: v.array(v.string()),
  initrdModules: v.array(v.string()),
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

export interface GuestImage {
  /** Names what is in it: recipe and builder. */
  readonly key: string;
  /** Another one for each build: the same recipe may give other package versions tomorrow. */
  readonly buildId: string;
  readonly directory: string;
  readonly kernel: string;
  readonly initrd: string;
  /** Never written after the build; guests get overlays over these. The first one is the root disk. */
  readonly disks: readonly (DiskFile & { readonly name: string })[];
}

/** The folder of the recipe: the same seen from src/ and from dist/. */
function recipeDirectory(): string {
  return fileURLToPath(new URL('../../vm-images/guest/', import.meta.url));
}

/** The image, built first if it is not in the cache (one to four minutes, with progress on stderr). */
export async function guestImage(): Promise<GuestImage> {
  const source = recipeDirectory();
  const recipe = v.parse(Recipe, JSON.parse(await readFile(path.join(source, 'recipe.json'), 'utf8')));
  const key = await recipeKey(source);
  const directory = await cached('images', `guest-${key}`, BUILD_LIMIT_MS, async (building) => {
    await step('guest image', async () => {
      await buildImage(recipe, source, building);
      await writeFile(path.join(building, BUILD_ID), randomUUID());
    });
  });
  await prune('images', 'guest-', 2, async (old) => old === directory || (await hasUsers(old)));
  return {
    key,
    buildId: await readFile(path.join(directory, BUILD_ID), 'utf8'),
    directory,
    kernel: path.join(directory, 'vmlinuz'),
    initrd: path.join(directory, 'initrd.gz'),
    disks: recipe.disks.map(({ name }) => ({ name, file: path.join(directory, `${name}.qcow2`), format: 'qcow2' })),
  };
}

/** Hash over every file of the recipe: its path, whether it is executable, its content. */
async function recipeKey(source: string): Promise<string> {
  const parts: (string | Uint8Array)[] = [BUILDER_VERSION];
  const entries = await readdir(source, { recursive: true });
  for (const name of entries.sort()) {
    const file = path.join(source, name);
    const info = await stat(file);
    if (!info.isFile()) continue;
    parts.push(name, (info.mode & 0o100) === 0 ? '-' : 'x', await readFile(file));
  }
  return keyOf(...parts);
}
