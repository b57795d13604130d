// What a run needs: the applications, and an image with our agent in which their files are made.
import path from 'node:path';
import { cached, hasUsers, keyOf, prune } from '../../src/testing/cache.js';
import { bootGuest, type GuestImage, type KernelVersion } from '../../src/testing/index.js';
import { copyDisk } from '../../src/testing/user-mode/boot-user-mode.js';
import { agentImage } from '../support/agent-guest.js';
import type { Engine } from './engine.js';
import { engineFor, RECIPES, type EngineName, type RecipeName } from './engines.js';

/** Of one kind of application in one guest, at native speed. */
const INSTALL_LIMIT_MS = 300_000;
const BUILD_LIMIT_MS = 600_000;

export interface Lab {
  readonly engines: readonly Engine[];
  readonly image: GuestImage;
  readonly kernel: KernelVersion | undefined;
}

/** Slow once per build of the agent. */
export async function makeLab(
  names: readonly EngineName[],
  recipe: RecipeName = 'debian-12',
  kernel?: KernelVersion,
): Promise<Lab> {
  const base = await agentImage(recipe);
  const engines = RECIPES[recipe].map((name) => engineFor[name](base));
  // One image for all choices of them.
  const image = await installed(base, engines);
  return { engines: engines.filter(({ name }) => names.some((chosen) => chosen === name)), image, kernel };
}

async function installed(base: GuestImage, engines: readonly Engine[]): Promise<GuestImage> {
  const scripts = engines.map(({ install }) => `set -e\n${install}`);
  const key = keyOf(base.key, base.buildId, ...scripts);
  const directory = await cached('images', `oracle-${key}`, BUILD_LIMIT_MS, async (building) => {
    await using guest = await bootGuest({ kind: 'user-mode', image: base });
    for (const script of scripts) await guest.exec(script, { timeoutMs: INSTALL_LIMIT_MS });
    await guest.shutdown();
    for (const { node, file } of guest.disks)
      await copyDisk({ file, format: 'raw' }, path.join(building, `${node}.raw`));
  });
  await prune('images', 'oracle-', 3, async (old) => old === directory || (await hasUsers(old)));
  const disks = base.disks.map((disk) => ({ ...disk, file: path.join(directory, `${disk.name}.raw`) }));
  return { ...base, key, directory, disks };
}
