// What building a package is made of: tools that are run, and a stamp that tells when nothing has changed.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../..', import.meta.url));
/** Where everything goes that is built. */
export const out = join(root, 'build');
export const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));

/** Runs a tool that chatters when all is well: what it says is shown only if it fails. */
export function run(command, args, options = {}) {
  const { error, status, stdout, stderr } = spawnSync(command, args, { cwd: root, encoding: 'utf8', ...options });
  if (status === 0) return;
  process.stderr.write(`${stdout ?? ''}${stderr ?? ''}`);
  throw new Error(`${command} ${args[0]}: ${error?.message ?? `exit code ${status}`}`, { cause: error });
}

/**
 * Does `work` unless it was done before with the same words and inputs: files, and folders with all that is in them, by
 * their names from the root of the project.
 */
export function whenChanged({ stamp, words, inputs }, work) {
  const hash = createHash('sha256').update(`${version} ${words.join(' ')}`);
  for (const file of inputs.flatMap((input) => filesOf(join(root, input)))) {
    hash.update(relative(root, file)).update(readFileSync(file));
  }
  const now = hash.digest('hex');
  if (readIfThere(stamp) === now) return;
  rmSync(stamp, { force: true });
  work();
  writeFileSync(stamp, now);
}

function filesOf(path) {
  if (!statSync(path).isDirectory()) return [path];
  return readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !/\/(build|node_modules)(\/|$)/.test(entry.parentPath.slice(path.length)))
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
