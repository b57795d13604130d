// Makes an rpm of files, with Debian's rpmbuild. The same files give the same bytes.
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { spawnSync } from 'node:child_process';
import { filledIn } from './payload.mjs';
import { out, root, run, version } from './run.mjs';

const payloads = { none: 'w1.gzdio', xz: 'w6.xzdio' };

/**
 * Packs `payload` by `specFile` into build/`file`. What stands between @ in it is the version, the tree, the list of
 * files, or a file of `scripts`. `compress`: `none` (as quick as rpm can) or `xz`. False where there is no rpmbuild: a build
 * does not fail for that.
 */
export function packRpm(payload, { file, specFile, scripts, compress }) {
  rmSync(join(out, file), { force: true });
  if (spawnSync('rpmbuild', ['--version']).error !== undefined) return false;
  const { tree, placed, folders, links, name } = payload;
  const top = join(out, `${name}-rpm`);
  rmSync(top, { recursive: true, force: true });
  mkdirSync(top);
  const octal = (mode) => `0${mode.toString(8)}`;
  const files = [
    ...folders.map(({ target, mode }) => `%dir %attr(${octal(mode)}, root, root) /${target}`),
    ...placed.map(({ target, mode }) => `%attr(${octal(mode)}, root, root) /${target}`),
    ...links.map((target) => `/${target}`),
  ].join('\n');
  const spec = filledIn(readFileSync(join(root, specFile), 'utf8'), {
    values: { tree, files, payload: payloads[compress] },
    folder: scripts,
  });
  writeFileSync(join(top, 'package.spec'), spec);
  const env = { ...process.env, SOURCE_DATE_EPOCH: '0', HOME: top };
  const where = ['--define', `_topdir ${top}`, '--target', 'x86_64-linux'];
  run('rpmbuild', ['-bb', '--quiet', ...where, join(top, 'package.spec')], { env });
  const made = join(top, `RPMS/x86_64/fsfreeze-agent-${version}-1.x86_64.rpm`);
  if (!existsSync(made)) throw new Error(`rpmbuild: expected ${made}, found none`);
  copyFileSync(made, join(out, file));
  rmSync(top, { recursive: true });
  return true;
}
