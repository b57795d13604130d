// The kernels of user-mode guests: Debian's package user-mode-linux of the suite that has the version, unpacked into the
// cache with what it needs to run on this machine, and an initrd with its modules. Nothing is installed.
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import * as v from 'valibot';
import { BridgeError } from '../../errors.js';
import { cached, cacheDirectory, hasUsers, keyOf, prune, touch } from '../cache.js';
import { packInitrd } from '../initrd.js';
import { unpackModule, withDependencies } from '../kernel-modules.js';
import { step } from '../progress.js';
import { requirePrograms, searchPath } from '../programs.js';
import { recipeFile, type KernelVersion } from '../recipes.js';

/** Changes when this file makes something else of the same packages. */
const BUILDER_VERSION = '1';
const BUILD_LIMIT_MS = 300_000;
const LOADER = 'ld-linux-x86-64.so.2';

const Kernels = v.strictObject({
  /** Version to the Debian suite that has it. */
  suites: v.strictObject({ '6.1': v.string(), '6.12': v.string(), '7.2': v.string() }),
  /** Below kernel/ of the modules' folder: files, and folders with all that is in them. */
  modules: v.array(v.string()),
});

export interface UserModeKernel {
  readonly version: KernelVersion;
  readonly directory: string;
  readonly program: string;
  readonly initrd: string;
}

/** The kernel, fetched first if it is not in the cache (about 10 s, with progress on stderr). */
export async function userModeKernel(version: KernelVersion): Promise<UserModeKernel> {
  const sources = await Promise.all(
    ['kernels.json', 'user-mode/init', 'fetch-packages.sh'].map(
      async (name) => await readFile(recipeFile(name), 'utf8'),
    ),
  );
  const { suites, modules } = v.parse(Kernels, JSON.parse(sources[0] ?? ''));
  // The program names the folder that it lies in (its interpreter's path): another place, another kernel.
  const name = `user-mode-${version}-${keyOf(BUILDER_VERSION, cacheDirectory(), ...sources)}`;
  const directory = await cached('kernels', name, BUILD_LIMIT_MS, async (building) => {
    requirePrograms('kernel');
    await step(`user-mode kernel ${version}`, async () => {
      await build(suites[version], modules, building, path.join(cacheDirectory(), 'kernels', name));
    });
  });
  await touch(directory);
  await prune('kernels', `user-mode-${version}-`, 1, async (old) => old === directory || (await hasUsers(old)));
  return { version, directory, program: path.join(directory, 'linux'), initrd: path.join(directory, 'initrd') };
}

/** Builds in `building`, to be used in `final`. */
async function build(suite: string, wanted: readonly string[], building: string, final: string): Promise<void> {
  const scratch = await mkdtemp(path.join(tmpdir(), 'fsb-kernel-'));
  try {
    const unpacked = path.join(scratch, 'packages');
    await mkdir(unpacked);
    const fetch = [recipeFile('fetch-packages.sh'), suite, unpacked, 'user-mode-linux', 'libc6'];
    await execa('sh', fetch, { stdin: 'ignore', timeout: BUILD_LIMIT_MS });
    await makeProgram(unpacked, building, final);
    const tree = path.join(scratch, 'initrd');
    await copyModules(path.join(unpacked, 'usr/lib/uml/modules'), tree, wanted);
    const init = await readFile(recipeFile('user-mode/init'), 'utf8');
    // Left uncompressed: it is read at native speed, once per boot.
    await packInitrd(path.join(building, 'initrd'), tree, init, 'cat');
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** Makes a kernel that runs with the C library of its suite. It executes itself, so starting it by way of ld.so does not help. */
async function makeProgram(unpacked: string, building: string, final: string): Promise<void> {
  const files = await readdir(unpacked, { recursive: true });
  await mkdir(path.join(building, 'lib'));
  for (const library of [LOADER, 'libc.so.6']) {
    const file = files.find((name) => name.endsWith(`-linux-gnu/${library}`));
    if (file === undefined) throw new BridgeError('E_KERNEL_BUILD', `package libc6: no ${library} in it`);
    await copyFile(path.join(unpacked, file), path.join(building, 'lib', library));
  }
  const program = path.join(building, 'linux');
  await copyFile(path.join(unpacked, 'usr/bin/linux.uml'), program);
  const lib = path.join(final, 'lib');
  const loader = ['--set-interpreter', path.join(lib, LOADER), '--set-rpath', lib];
  await execa('patchelf', [...loader, program], { timeout: 60_000 });
}

/** Copies the modules wanted and what they depend on below `tree`, uncompressed, as in a root filesystem. */
async function copyModules(source: string, tree: string, wanted: readonly string[]): Promise<void> {
  const [version, ...more] = await readdir(source);
  if (version === undefined || more.length > 0) {
    throw new BridgeError('E_KERNEL_BUILD', `${source}: expected one version, found ${[version, ...more].join(', ')}`);
  }
  const from = path.join(source, version);
  const to = path.join(tree, 'lib/modules', version);
  const chosen = await withDependencies(from, wanted);
  for (const module of chosen) await unpackModule(path.join(from, module), path.join(to, path.dirname(module)));
  for (const list of ['modules.builtin', 'modules.builtin.modinfo', 'modules.order']) {
    await copyFile(path.join(from, list), path.join(to, list));
  }
  await execa('depmod', ['-b', tree, version], { timeout: 60_000, env: { PATH: searchPath() } });
}
