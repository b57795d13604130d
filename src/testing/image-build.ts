// Builds the image of a guest: mmdebstrap fills a folder, mkfs makes filesystems of it (nothing is mounted on the host), an
// initrd is packed, and one boot (user-mode: at native speed) finishes what needs a running system. Root is not needed
// where user namespaces with subordinate ids are (mmdebstrap's unshare mode).
import { chmod, copyFile, cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir, userInfo } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { BridgeError, UsageError } from '../errors.js';
import { exists } from './cache.js';
import { guestDirectory } from './guest-folder.js';
import type { GuestImage } from './guest-image.js';
import { packInitrd } from './initrd.js';
import { isModule, moduleName, unpackModule } from './kernel-modules.js';
import { step } from './progress.js';
import { searchPath } from './programs.js';
import { guestFolder, type Recipe } from './recipes.js';
import { userModeKernel } from './user-mode/kernel.js';
import { launchUserMode } from './user-mode/launch.js';

const MINUTE_MS = 60_000;

/** Makes the files that `image` names: its disks, vmlinuz, initrd.gz. */
export async function buildImage(recipe: Recipe, image: GuestImage): Promise<void> {
  if (!isRoot()) await requireSubordinateIds();
  const scratch = await mkdtemp(path.join(tmpdir(), 'fsb-image-'));
  try {
    // In a user namespace neither the caller's folders nor a checkout with a narrow umask can be read: copy first.
    await chmod(scratch, isRoot() ? 0o755 : 0o777);
    const copy = path.join(scratch, 'recipe');
    await cp(guestFolder(), copy, { recursive: true });
    await execa('chmod', ['-R', 'a+rX', copy]);

    const root = path.join(scratch, 'rootfs');
    await step('  packages (mmdebstrap)', async () => {
      await bootstrap(recipe, copy, root);
    });
    await step('  kernel and initrd', async () => {
      await extractKernel(recipe, copy, root, scratch, image);
    });
    const disks = recipe.disks.map((disk) => ({ ...disk, file: path.join(scratch, `${disk.name}.raw`) }));
    await step('  filesystems', async () => {
      for (const disk of disks) await makeFilesystem(disk, root);
    });
    await step('  first boot', async () => {
      await finish(recipe, image, copy, disks);
    });
    await step('  packing', async () => {
      for (const [index, { file }] of disks.entries()) {
        const packed = image.disks[index]?.file ?? '';
        await run('cp', ['--sparse=always', file, packed]);
        await chmod(packed, 0o444);
      }
    });
  } finally {
    const root = path.join(scratch, 'rootfs');
    if (await exists(root)) await inNamespace('rm', ['-rf', '--', root]);
    await rm(scratch, { recursive: true, force: true });
  }
}

async function bootstrap(recipe: Recipe, copy: string, root: string): Promise<void> {
  const nothing = ['doc', 'man', 'locale', 'info', 'i18n'].map((name) => `/usr/share/${name}/*`);
  const unused = [...nothing, '/usr/lib/x86_64-linux-gnu/libLLVM*']; // PostgreSQL's compiler, switched off by jit = off
  const clusterConf = 'etc/postgresql-common/createcluster.conf';
  await run('mmdebstrap', [
    '--quiet',
    '--variant=minbase',
    `--mode=${isRoot() ? 'root' : 'unshare'}`,
    '--format=directory',
    `--include=${[...recipe.packages, `postgresql-${recipe.postgresql}`].join(',')}`,
    ...unused.map((glob) => `--dpkgopt=path-exclude=${glob}`),
    '--dpkgopt=force-unsafe-io',
    '--dpkgopt=force-confold',
    '--aptopt=APT::Install-Recommends "false"',
    '--aptopt=Acquire::Languages "none"',
    '--aptopt=Acquire::Retries "3"',
    `--essential-hook=install -D -m 0644 '${copy}/files/${clusterConf}' "$1/${clusterConf}"`,
    `--customize-hook='${copy}/customize.sh' "$1" '${copy}' '${recipe.postgresql}'`,
    recipe.suite,
    root,
    ...aptSources(recipe.suite),
  ]);
}

/**
 * Gives no source without a mirror of one's own: mmdebstrap then takes Debian's archive with updates and security updates.
 * With such a mirror only that one is asked, unless it is told where security updates are.
 */
function aptSources(suite: string): string[] {
  // Empty is not set.
  const { FSB_DEBIAN_MIRROR: mirror = '', FSB_DEBIAN_SECURITY_MIRROR: security = '' } = process.env;
  if (mirror === '') return [];
  const sources = [`deb ${mirror} ${suite} main`];
  return security === '' ? sources : [...sources, `deb ${security} ${suite}-security main`];
}

async function extractKernel(
  recipe: Recipe,
  copy: string,
  root: string,
  scratch: string,
  image: GuestImage,
): Promise<void> {
  const boot = path.join(root, 'boot');
  const kernels = (await readdir(boot)).filter((name) => name.startsWith('vmlinuz-'));
  const [kernel] = kernels;
  if (kernel === undefined || kernels.length > 1) {
    throw new BridgeError('E_IMAGE_KERNEL', `${boot}: expected one vmlinuz-*, found ${kernels.join(', ') || 'none'}`);
  }
  await copyFile(path.join(boot, kernel), image.kernel);
  const modules = path.join(root, 'usr/lib/modules', kernel.slice('vmlinuz-'.length));
  const files = (await readdir(modules, { recursive: true })).filter(isModule);
  const tree = path.join(scratch, 'initrd');
  const order: string[] = [];
  for (const module of recipe.initrdModules) {
    const found = files.find((file) => moduleName(file) === module);
    if (found === undefined) throw new BridgeError('E_IMAGE_MODULE', `${modules}: no module ${module}`);
    order.push(path.basename(await unpackModule(path.join(modules, found), path.join(tree, 'modules'))));
  }
  await writeFile(path.join(tree, 'modules/order'), order.map((name) => `${name}\n`).join(''));
  await packInitrd(image.initrd, tree, await readFile(path.join(copy, 'initrd/init'), 'utf8'));
}

type Disk = Recipe['disks'][number] & { readonly file: string };

/** Whole-disk filesystems, no partition table. The root disk is filled from `root`; no lazy work is left to the kernel. */
async function makeFilesystem({ filesystem, file, label, sizeMiB }: Disk, root: string): Promise<void> {
  await run('truncate', ['-s', `${sizeMiB}M`, file]);
  if (!isRoot()) await chmod(file, 0o666);
  if (filesystem === 'xfs') await run('mkfs.xfs', ['-q', '-L', label, file]);
  else {
    const options = ['-q', '-F', '-L', label, '-m', '1', '-E', 'lazy_itable_init=0,lazy_journal_init=0'];
    await inNamespace('mkfs.ext4', [...options, '-d', root, file]);
  }
}

async function finish(recipe: Recipe, image: GuestImage, copy: string, disks: readonly Disk[]): Promise<void> {
  const kernel = await userModeKernel(recipe.kernel);
  await using guest = await launchUserMode({ image, kernel, disks, memoryMiB: 768, dir: await guestDirectory() });
  await guest.waitForCommands(2 * MINUTE_MS);
  await guest.waitForSystem();
  const script = await readFile(path.join(copy, 'finish.sh'), 'utf8');
  await guest.exec(['/bin/sh', '-eu', '-s', recipe.postgresql], { input: script, timeoutMs: 2 * MINUTE_MS });
  await guest.shutdown();
}

/** Throws UsageError `E_SUBORDINATE_IDS` when this user has none: Debian's own users cannot be made then. */
async function requireSubordinateIds(): Promise<void> {
  const uid = String(process.getuid?.());
  const username = nameOfUser() ?? uid;
  for (const file of ['/etc/subuid', '/etc/subgid']) {
    const owners = (await readFile(file, 'utf8').catch(() => '')).split('\n').map((line) => line.split(':')[0]);
    if (owners.includes(username) || owners.includes(uid)) continue;
    throw new UsageError(
      'E_SUBORDINATE_IDS',
      `building a guest image without root: ${file}: expected ids of ${username}, found none. ` +
        `As root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ${username}`,
    );
  }
}

function nameOfUser(): string | undefined {
  try {
    return userInfo().username;
  } catch {
    return undefined; // not in /etc/passwd, as in some containers
  }
}

function isRoot(): boolean {
  return process.getuid?.() === 0;
}

async function run(command: string, args: readonly string[]): Promise<void> {
  await execa(command, args, {
    stdin: 'ignore',
    timeout: 4 * MINUTE_MS,
    env: { LC_ALL: 'C.UTF-8', PATH: searchPath() },
  });
}

/** Runs a command as the owner of what mmdebstrap wrote. */
async function inNamespace(command: string, args: readonly string[]): Promise<void> {
  if (isRoot()) await run(command, args);
  else await run('mmdebstrap', ['--unshare-helper', command, ...args]);
}
