// Finds the image of a recipe of vm-images/ in the cache, or has image-build.ts build it there. Every guest of either kind
// starts from an image, and writes to disks of its own.
import { randomUUID } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { cached, hasUsers, keyOf, prune } from './cache.js';
import type { GuestImage } from './guest-image.js';
import { buildImage } from './image-build.js';
import { step } from './progress.js';
import { requirePrograms } from './programs.js';
import { guestParts, readRecipe, type Recipe } from './recipes.js';

/** Changes when image-build.ts makes something else of the same recipe. */
const BUILDER_VERSION = '3';
const BUILD_ID = 'build-id';
const BUILD_LIMIT_MS = 360_000;

/**
 * The image of a recipe, built first if it is not in the cache (about a minute, with progress on stderr). Throws
 * UsageError when there is no such recipe, or this machine lacks a program that the build needs (`E_PROGRAMS`).
 */
export async function guestImage(name = 'debian-12'): Promise<GuestImage> {
  const recipe = await readRecipe(name);
  const key = keyOf(BUILDER_VERSION, JSON.stringify(recipe), ...(await guestParts()));
  const directory = await cached('images', `${name}-${key}`, BUILD_LIMIT_MS, async (building) => {
    requirePrograms('image', 'kernel', 'user-mode');
    await step(`guest image ${name}`, async () => {
      await buildImage(recipe, describeImage(name, recipe, key, '', building));
      await writeFile(path.join(building, BUILD_ID), randomUUID());
    });
  });
  await prune('images', `${name}-`, 2, async (old) => old === directory || (await hasUsers(old)));
  return describeImage(name, recipe, key, await readFile(path.join(directory, BUILD_ID), 'utf8'), directory);
}

function describeImage(name: string, recipe: Recipe, key: string, buildId: string, directory: string): GuestImage {
  const { postgresql: version } = recipe;
  return {
    name,
    key,
    buildId,
    directory,
    kernel: path.join(directory, 'vmlinuz'),
    initrd: path.join(directory, 'initrd.gz'),
    userModeKernel: recipe.kernel,
    ports: recipe.ports,
    postgresql: {
      version,
      unit: `postgresql@${version}-main.service`,
      binaries: `/usr/lib/postgresql/${version}/bin`,
      data: `/var/lib/postgresql/${version}/main`,
    },
    disks: recipe.disks.map((disk) => ({
      name: disk.name,
      file: path.join(directory, `${disk.name}.raw`),
      format: 'raw',
    })),
  };
}
