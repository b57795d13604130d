// Builds what goes into a guest: the agent as one executable (its bundle in a Node without io_uring), with the program
// that it is under its second name, fsfreeze-snapshot; the static freezer; and packages of them with units and writers,
// for Debian and for RHEL. Run after tsc; does nothing if nothing it reads
// has changed. The host tool's package is made of the same parts: src/cli/bridge/package/.
//
//   node qga/package/build.mjs [--compress none|xz]      -> build/fsfreeze-agent, build/freezer, build/fsfreeze-agent.deb, .rpm
import { mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { build } from 'esbuild';
import { copyrightOf } from './copyright.mjs';
import { packDeb } from './deb.mjs';
import { makeExecutable } from './executable.mjs';
import { takeOutIoUring } from './io-uring.mjs';
import { startPayload } from './payload.mjs';
import { packRpm } from './rpm.mjs';
import { out, root, run, whenChanged } from './run.mjs';

const { compress } = parseArgs({ options: { compress: { type: 'string', default: 'none' } } }).values;
const bundle = join(out, 'agent.cjs');
const snapshotBundle = join(out, 'snapshot.cjs');
/** Within the executable. */
const SNAPSHOT_ASSET = 'snapshot.cjs';

mkdirSync(out, { recursive: true });
const modules = [
  ...new Set([
    ...(await bundleProgram('agent', bundle, onlyAsAgent())),
    ...(await bundleProgram('snapshot', snapshotBundle, '')),
  ]),
];
const inputs = [
  'src/snapshot/README.md',
  'qga/freezer',
  'qga/systemd',
  'qga/conf',
  'fsfreeze-hook.d',
  'qga/package',
  'LICENSE',
];
whenChanged(
  { stamp: join(out, 'stamp'), words: [compress], inputs: ['build/agent.cjs', 'build/snapshot.cjs', ...inputs] },
  () => {
    makeExecutable({
      bundle,
      target: join(out, 'fsfreeze-agent'),
      settings: { assets: { [SNAPSHOT_ASSET]: snapshotBundle } },
      patch: takeOutIoUring,
    });
    run('make', ['-C', 'qga/freezer', `OUT=${out}`]);
    buildPackages();
  },
);

/**
 * Comes before all code of the agent: called by the other name, the executable runs the other program, and nothing of the
 * agent. An agent pays for it by a look at its own name. The other program is a text that is only read then, since what
 * lies in the agent's bundle would be compiled and kept with it.
 */
function onlyAsAgent() {
  return `if(require('node:path').basename(process.argv0)==='fsfreeze-snapshot'){
const source=require('node:sea').getAsset('${SNAPSHOT_ASSET}','utf8');
return require('node:vm').compileFunction(source,['require','module','exports'],{filename:'${SNAPSHOT_ASSET}'})(require,module,exports);
}
`;
}

/** The files that are in it. */
async function bundleProgram(name, outfile, head) {
  const result = await build({
    entryPoints: [join(root, `dist/cli/${name}/main.js`)],
    outfile,
    absWorkingDir: root,
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
    banner: { js: `${head}const __importMetaUrl=require('node:url').pathToFileURL(process.execPath).href;` },
  });
  const files = Object.keys(result.metafile.inputs);
  // For the test that no host code reaches the guest.
  writeFileSync(join(out, `${name}.modules.json`), JSON.stringify(files, null, 2));
  return files;
}

function buildPackages() {
  const payload = startPayload('agent');
  const { put, link, folder, write, remove } = payload;
  const scripts = 'qga/package/scripts';
  put('build/fsfreeze-agent', 'usr/bin/fsfreeze-agent', 0o755);
  link('fsfreeze-agent', 'usr/bin/fsfreeze-snapshot');
  put('build/freezer', 'usr/lib/fsfreeze-bridge/freezer', 0o755);
  for (const name of readdirSync(join(root, 'fsfreeze-hook.d'))) {
    if (name === 'README.md') continue;
    // What writers share is read by them, and is no program.
    const mode = statSync(join(root, 'fsfreeze-hook.d', name)).mode & 0o111 ? 0o755 : 0o644;
    put(`fsfreeze-hook.d/${name}`, `usr/lib/fsfreeze-bridge/fsfreeze-hook.d/${name}`, mode);
  }
  // There from the start, so that what is dropped in is noticed.
  folder('etc/fsfreeze-bridge/fsfreeze-hook.d');
  const owned = ['etc/fsfreeze-bridge', 'usr/lib/fsfreeze-bridge', 'usr/lib/fsfreeze-bridge/fsfreeze-hook.d'];
  for (const target of [...owned, 'usr/share/doc/fsfreeze-agent']) folder(target);
  put('fsfreeze-hook.d/README.md', 'usr/share/doc/fsfreeze-agent/writers.md');
  put('src/snapshot/README.md', 'usr/share/doc/fsfreeze-agent/snapshots.md');
  write(copyrightOf(modules), 'usr/share/doc/fsfreeze-agent/copyright');
  for (const name of readdirSync(join(root, 'qga/conf'))) {
    put(`qga/conf/${name}`, `usr/share/doc/fsfreeze-agent/examples/${name}`);
  }
  for (const unit of [
    'fsfreeze-freezer.service',
    'fsfreeze-snapshot-gc.service',
    'fsfreeze-agent.service',
    'fsfreeze-agent-local.service',
    'fsfreeze-agent-vsock.socket',
    'fsfreeze-agent-vsock.service',
  ]) {
    put(`qga/systemd/${unit}`, `usr/lib/systemd/system/${unit}`);
  }
  put('qga/systemd/99-zz-fsfreeze-agent.rules', 'usr/lib/udev/rules.d/99-zz-fsfreeze-agent.rules');
  packDeb(payload, { file: 'fsfreeze-agent.deb', controlFolder: 'qga/package/deb', scripts, compress });
  put('qga/package/rpm/fsfreeze-agent.cil', 'usr/share/selinux/packages/fsfreeze-agent.cil');
  const isMade = packRpm(payload, {
    file: 'fsfreeze-agent.rpm',
    specFile: 'qga/package/rpm/fsfreeze-agent.spec',
    scripts,
    compress,
  });
  if (!isMade) process.stderr.write('no rpm: expected rpmbuild (Debian package rpm), found none\n');
  remove();
}
