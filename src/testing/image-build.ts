// Builds the guest's image: mmdebstrap fills a folder, mkfs makes filesystems of it (nothing is mounted on the host), an
// initrd is packed, and one boot finishes what needs a running system. Root is not needed where user namespaces with
// subordinate ids are (mmdebstrap's unshare mode).
import { chmod, copyFile, cp, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { BridgeError } from '../errors.js';
import { Reverter } from '../reverter.js';
import { chooseAccelerator } from './accelerator.js';
import { describeDisk } from './disks.js';
import { guestDirectory } from './guest-folder.js';
import type { Recipe } from './image.js';
import { makeInitrd } from './initrd.js';
import { launch, waitForGuest } from './launch.js';
import { step } from './progress.js';

const MINUTE_MS = 60_000;

/** Builds into `target`: NAME.qcow2 for each disk, vmlinuz, initrd.gz. `source` is the recipe's folder. */
export async function buildImage(recipe: Recipe, source: string, target: string): Promise<void> {
  const scratch = await mkdtemp(path.join(tmpdir(), 'fsb-image-'));
  try {
    // In a user namespace neither the caller's folders nor a checkout with a narrow umask can be read: copy first.
    await chmod(scratch, isRoot() ? 0o755 : 0o777);
    const copy = path.join(scratch, 'recipe');
    await cp(source, copy, { recursive: true });
    await execa('chmod', ['-R', 'a+rX', copy]);

    const root = path.join(scratch, 'rootfs');
    await step('  packages (mmdebstrap)', async () => {
      await bootstrap(recipe, copy, root);
    });
    await step('  kernel and initrd', async () => {
      await extractKernel(recipe, copy, root, scratch, target);
    });
    await step('  filesystems', async () => {
      for (const disk of recipe.disks) await makeFilesystem(disk, root, scratch);
    });
    await step('  first boot', async () => {
      await finish(recipe, copy, scratch, target);
    });
    await step('  packing', async () => {
      for (const { name } of recipe.disks) {
        const packed = path.join(target, `${name}.qcow2`);
        await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', rawDisk(scratch, name), packed]);
        await chmod(packed, 0o444);
      }
    });
  } finally {
    await inNamespace('rm', ['-rf', '--', path.join(scratch, 'rootfs')]);
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
    `--include=${recipe.packages.join(',')}`,
    ...unused.map((glob) => `--dpkgopt=path-exclude=${glob}`),
    '--dpkgopt=force-unsafe-io',
    '--dpkgopt=force-confold',
    '--aptopt=APT::Install-Recommends "false"',
    '--aptopt=Acquire::Languages "none"',
    '--aptopt=Acquire::Retries "3"',
    `--essential-hook=install -D -m 0644 '${copy}/files/${clusterConf}' "$1/${clusterConf}"`,
    `--customize-hook='${copy}/customize.sh' "$1" '${copy}'`,
    recipe.suite,
    root,
    ...aptSources(recipe.suite),
  ]);
}

/**
 * None, for mmdebstrap's own: Debian's archive with updates and security updates. With a mirror of one's own, only that
 * one is asked, unless it is told where security updates are.
 */
function aptSources(suite: string): string[] {
  const mirror = process.env['FSB_DEBIAN_MIRROR'];
  const security = process.env['FSB_DEBIAN_SECURITY_MIRROR'];
  if (mirror === undefined) return [];
  const sources = [`deb ${mirror} ${suite} main`];
  return security === undefined ? sources : [...sources, `deb ${security} ${suite}-security main`];
}

async function extractKernel(
  recipe: Recipe,
  copy: string,
  root: string,
  scratch: string,
  target: string,
): Promise<void> {
  const boot = path.join(root, 'boot');
  const kernels = (await readdir(boot)).filter((name) => name.startsWith('vmlinuz-'));
  const [kernel] = kernels;
  if (kernel === undefined || kernels.length > 1) {
    throw new BridgeError('E_IMAGE_KERNEL', `${boot}: expected one vmlinuz-*, found ${kernels.join(', ') || 'none'}`);
  }
  await copyFile(path.join(boot, kernel), path.join(target, 'vmlinuz'));
  const modules = path.join(root, 'usr/lib/modules', kernel.slice('vmlinuz-'.length));
  const files = (await readdir(modules, { recursive: true })).filter((name) => name.endsWith('.ko'));
  const wanted = recipe.initrdModules.map((module) => {
    const found = files.find((file) => path.basename(file, '.ko') === module);
    if (found === undefined) throw new BridgeError('E_IMAGE_MODULE', `${modules}: no module ${module}.ko`);
    return path.join(modules, found);
  });
  const init = await readFile(path.join(copy, 'initrd/init'), 'utf8');
  await makeInitrd(path.join(target, 'initrd.gz'), path.join(scratch, 'initrd'), init, wanted);
}

/** Whole-disk filesystems, no partition table. The root disk is filled from `root`; no lazy work is left to the kernel. */
async function makeFilesystem(disk: Recipe['disks'][number], root: string, scratch: string): Promise<void> {
  const file = rawDisk(scratch, disk.name);
  await run('truncate', ['-s', `${disk.sizeMiB}M`, file]);
  if (!isRoot()) await chmod(file, 0o666);
  if (disk.filesystem === 'xfs') await run('mkfs.xfs', ['-q', '-L', disk.label, file]);
  else {
    const options = ['-q', '-F', '-L', disk.label, '-m', '1', '-E', 'lazy_itable_init=0,lazy_journal_init=0'];
    await inNamespace('mkfs.ext4', [...options, '-d', root, file]);
  }
}

async function finish(recipe: Recipe, copy: string, scratch: string, target: string): Promise<void> {
  const kernel = path.join(target, 'vmlinuz');
  const disks = recipe.disks.map(({ name }) => describeDisk(name, { file: rawDisk(scratch, name), format: 'raw' }));
  const machine = {
    kernel,
    initrd: path.join(target, 'initrd.gz'),
    memoryMiB: 768,
    cpus: 2,
    accelerator: await chooseAccelerator(kernel),
    disks: await Promise.all(disks),
  };
  await using guest = await launch(machine, await guestDirectory(), false, new Reverter());
  await waitForGuest(guest, 2 * MINUTE_MS);
  await guest.waitForSystem();
  const script = await readFile(path.join(copy, 'finish.sh'), 'utf8');
  await guest.exec(['/bin/sh', '-eu', '-s'], { input: script, timeoutMs: 2 * MINUTE_MS });
  await guest.shutdown();
}

function rawDisk(scratch: string, name: string): string {
  return path.join(scratch, `${name}.raw`);
}

function isRoot(): boolean {
  return process.getuid?.() === 0;
}

async function run(command: string, args: readonly string[]): Promise<void> {
  await execa(command, args, { stdin: 'ignore', timeout: 4 * MINUTE_MS, env: { LC_ALL: 'C.UTF-8' } });
}

/** Runs a command as the owner of what mmdebstrap wrote. */
async function inNamespace(command: string, args: readonly string[]): Promise<void> {
  if (isRoot()) await run(command, args);
  else await run('mmdebstrap', ['--unshare-helper', command, ...args]);
}
