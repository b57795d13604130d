// The text that goes along with a program we hand out as one executable: our licence, those of the libraries that were
// bundled, and Node's with all that is in Node.
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { runtime } from './executable.mjs';
import { root } from './run.mjs';

/**
 * `modules`: the files of the bundle, as esbuild names them (from the root of the project).
 * @throws Error if a library has no licence to hand on
 */
export function copyrightOf(modules) {
  const libraries = new Set(modules.map((file) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(file)?.[0]));
  libraries.delete(undefined);
  const parts = [...libraries].sort().map((folder) => [nameOf(join(root, folder)), licenceIn(join(root, folder))]);
  return [['fsfreeze-bridge', licenceIn(root)], ...parts, [nameOf(runtime), licenceIn(runtime)]]
    .map(([name, text]) => `${name}\n${'='.repeat(name.length)}\n\n${text.trim()}\n`)
    .join('\n\n');
}

function nameOf(folder) {
  const { name, version } = packageIn(folder);
  return `${name} ${version}`;
}

/** The text of its licence; of a package that comes without one, what it says of itself. */
function licenceIn(folder) {
  const files = readdirSync(folder).filter((name) => /^(licen[cs]e|copying)(\.(md|txt))?$/i.test(name));
  if (files.length > 0) return files.map((name) => readFileSync(join(folder, name), 'utf8')).join('\n');
  const { license, author } = packageIn(folder);
  if (license === undefined) throw new Error(`${folder}: expected a licence to hand on with the program, found none`);
  return `Licence: ${license}. Author: ${author?.name ?? author ?? 'not named'}.`;
}

function packageIn(folder) {
  return JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
}
