// npm run test:libvirt [-- SUITE ...]: the tests of the host tool on libvirt, with virsh and libvirtd of other
// Debian suites, unpacked into the cache; nothing is installed. QEMU and what libvirt reads in /usr/share are this
// machine's. Not part of `npm test`: suites change, and an archive must be reached.
import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rename, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { cacheDirectory, exists } from '../src/testing/cache.js';
import { recipeFile } from '../src/testing/recipes.js';

const PACKAGES = ['libvirt-clients', 'libvirt-daemon', 'libvirt-daemon-driver-qemu', 'libc6'];
const PROGRAMS = ['usr/bin/virsh', 'usr/sbin/libvirtd'];
const LOADER = 'ld-linux-x86-64.so.2';

/** The folder with the suite's programs, which find their libraries and drivers in it. */
async function fetched(suite: string): Promise<string> {
  const parent = path.join(cacheDirectory(), 'libvirt-versions');
  const final = path.join(parent, suite);
  if (await exists(final)) return final;
  await mkdir(parent, { recursive: true });
  const building = await mkdtemp(path.join(tmpdir(), 'fsb-libvirt-'));
  try {
    const fetch = [recipeFile('fetch-packages.sh'), '--with-dependencies', suite, building, ...PACKAGES];
    await execa('sh', fetch, { stdin: 'ignore', stdout: 'inherit', stderr: 'inherit' });
    await mkdir(path.join(building, 'programs'));
    const library = ['usr/lib/x86_64-linux-gnu', 'lib/x86_64-linux-gnu'].map((name) => path.join(final, name));
    const files = await readdir(building, { recursive: true });
    const loader = files.find((name) => name.endsWith(`/${LOADER}`));
    if (loader === undefined) throw new Error(`package libc6: no ${LOADER} in it`);
    for (const program of PROGRAMS) {
      // Not RUNPATH: the drivers it loads need the libraries, too, and LD_LIBRARY_PATH would reach QEMU.
      const paths = ['--set-interpreter', path.join(final, loader), '--force-rpath', '--set-rpath', library.join(':')];
      await execa('patchelf', [...paths, path.join(building, program)]);
      await symlink(path.join('..', program), path.join(building, 'programs', path.basename(program)));
    }
    await rename(building, final).catch(async () => await execa('mv', [building, final]));
    return final;
  } catch (cause) {
    await rm(building, { recursive: true, force: true });
    throw cause;
  }
}

const suites = process.argv.slice(2);
for (const suite of suites.length === 0 ? ['trixie', 'sid'] : suites) {
  const folder = await fetched(suite);
  const env = {
    ...process.env,
    PATH: `${path.join(folder, 'programs')}:${process.env['PATH'] ?? ''}`,
    LIBVIRT_DRIVER_DIR: path.join(folder, 'usr/lib/x86_64-linux-gnu/libvirt/connection-driver'),
  };
  const { stdout } = await execa('libvirtd', ['--version'], { env });
  console.log(`== ${suite}: ${stdout}`);
  // Each is the beginning of the names of files.
  const tests = ['virsh', 'libvirt-domain', 'libvirt-tpm', 'libvirt-backup'].map((name) => `test/integration/${name}`);
  const { status } = spawnSync('npx', ['vitest', 'run', '--config', 'test/vitest.config.ts', ...tests], {
    cwd: fileURLToPath(new URL('..', import.meta.url)),
    stdio: 'inherit',
    env,
  });
  if (status !== 0) process.exitCode = 1;
}
