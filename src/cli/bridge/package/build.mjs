// Builds the host tool as one executable, for hosts without Node, and a Debian package of it with the manual page, the units
// that recover, and no configuration. Both are made as the guest's are (qga/package/), with a Node as it is distributed.
// Run after src/cli/bridge/build.mjs; does nothing if nothing it reads has changed.
//
//   node src/cli/bridge/package/build.mjs [--compress none|xz]  -> build/fsfreeze-bridge, build/fsfreeze-bridge_*_amd64.deb
import { mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { copyrightOf } from '../../../../qga/package/copyright.mjs';
import { packDeb } from '../../../../qga/package/deb.mjs';
import { makeExecutable } from '../../../../qga/package/executable.mjs';
import { startPayload } from '../../../../qga/package/payload.mjs';
import { out, root, version, whenChanged } from '../../../../qga/package/run.mjs';

const { compress } = parseArgs({ options: { compress: { type: 'string', default: 'none' } } }).values;
const here = 'src/cli/bridge/package';
const bundle = 'dist/fsfreeze-bridge.cjs';
const manual = 'dist/fsfreeze-bridge.8';
const modules = 'build/bridge.modules.json';

mkdirSync(out, { recursive: true });
const inputs = [bundle, manual, modules, here, 'qga/package', 'CHANGELOG.md', 'LICENSE'];
whenChanged({ stamp: join(out, 'bridge.stamp'), words: [compress], inputs }, () => {
  makeExecutable({
    bundle: join(root, bundle),
    target: join(out, 'fsfreeze-bridge'),
    // Its users need not know that it is Node: NODE_OPTIONS is not meant for it.
    settings: { execArgvExtension: 'none' },
  });
  buildDeb();
});

function buildDeb() {
  for (const name of readdirSync(out)) if (/^fsfreeze-bridge_.*\.deb$/.test(name)) rmSync(join(out, name));
  const payload = startPayload('bridge');
  const { put, putCompressed, write, folder, remove } = payload;
  const documents = 'usr/share/doc/fsfreeze-bridge';
  put('build/fsfreeze-bridge', 'usr/bin/fsfreeze-bridge', 0o755);
  for (const unit of ['fsfreeze-bridge-recover.service', 'fsfreeze-bridge-recover.timer']) {
    put(`${here}/systemd/${unit}`, `usr/lib/systemd/system/${unit}`);
  }
  putCompressed(manual, 'usr/share/man/man8/fsfreeze-bridge.8');
  putCompressed('CHANGELOG.md', `${documents}/changelog`);
  put(`${here}/README.md`, `${documents}/README.md`);
  put(`${here}/vms.json`, `${documents}/examples/vms.json`);
  write(copyrightOf(JSON.parse(readFileSync(join(root, modules), 'utf8'))), `${documents}/copyright`);
  // dpkg removes both folders with the package, but only if they are empty.
  folder('etc/fsfreeze-bridge');
  folder('var/lib/fsfreeze-bridge', 0o750);
  packDeb(payload, { file: `fsfreeze-bridge_${version}_amd64.deb`, controlFolder: `${here}/deb`, compress });
  remove();
}
