// The fixture as other people get it: the packed package, installed in a project that is none of ours, and the example of
// src/testing/README.md run there to the letter.
import { readFile, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import * as v from 'valibot';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { installedImage } from '../../src/testing/index.js';
import { requires, USER_MODE } from '../support/requires.js';
import { scratch, type Scratch } from '../support/scratch.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const DEB = path.join(root, 'build/fsfreeze-agent.deb');
const BUILD_LIMIT_MS = 500_000;
const RUN_LIMIT_MS = 120_000;

/** The types are there, and are not `any`. */
const TYPES = `
import { QmpClient } from 'fsfreeze-bridge/qmp-client';
import { bootGuest, guestImage, type UserModeGuest } from 'fsfreeze-bridge/testing';
const guest: UserModeGuest = await bootGuest({ kind: 'user-mode', image: await guestImage('debian-12') });
const { host }: { readonly host: string } = await guest.sharedFolder();
await guest.copyIn([host], '/run');
// @ts-expect-error: there is no such kind
await bootGuest({ kind: 'container' });
export const connect: typeof QmpClient.connect = QmpClient.connect;
`;

requires(
  ...USER_MODE,
  'gcc',
  'npm',
)('the package in a project of somebody else', () => {
  let project: Scratch;

  beforeAll(async () => {
    await installedImage({ debs: [DEB] });
    project = scratch();
    const tarball = await pack(project.dir);
    await writeFile(project.path('package.json'), '{ "name": "outside", "private": true, "type": "module" }\n');
    const quietly = ['--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error'];
    await execa('npm', ['install', ...quietly, tarball], { cwd: project.dir, timeout: RUN_LIMIT_MS });
  }, BUILD_LIMIT_MS);
  afterAll(() => {
    project[Symbol.dispose]();
  });

  test("the documented test of one's own hook passes", { timeout: RUN_LIMIT_MS }, async () => {
    const [hook, script] = await examples();
    await writeFile(project.path('my-hook'), hook, { mode: 0o755 });
    await writeFile(project.path('hook.test.mjs'), script);
    await symlink(DEB, project.path('fsfreeze-agent.deb'));
    const before = performance.now();
    const { stdout, stderr, exitCode } = await execa(process.execPath, ['--test', 'hook.test.mjs'], {
      cwd: project.dir,
      env: { NODE_OPTIONS: '' },
      reject: false,
      timeout: RUN_LIMIT_MS,
    });
    expect(`${stdout}\n${stderr}`).toMatch(/^\S+ pass 1$/m);
    expect(exitCode).toBe(0);
    // It has built nothing: the recipes in the package are those of the checkout.
    expect(stdout).not.toContain('guest image');
    console.log(`outside: booted, frozen, thawed in ${((performance.now() - before) / 1000).toFixed(1)} s`);
  });

  test('the types of the exports resolve', { timeout: RUN_LIMIT_MS }, async () => {
    await writeFile(project.path('types.ts'), TYPES);
    const nodeTypes = ['--typeRoots', path.join(root, 'node_modules/@types'), '--types', 'node'];
    const { stdout, exitCode } = await execa(
      path.join(root, 'node_modules/.bin/tsc'),
      ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2023', ...nodeTypes, 'types.ts'],
      { cwd: project.dir, reject: false, timeout: RUN_LIMIT_MS },
    );
    expect(stdout).toBe('');
    expect(exitCode).toBe(0);
  });
});

/** The tarball. Nothing is built by it: the package has no script that npm would run. */
async function pack(target: string): Promise<string> {
  const { scripts = {} } = v.parse(
    v.looseObject({ scripts: v.optional(v.record(v.string(), v.string())) }),
    JSON.parse(await readFile(path.join(root, 'package.json'), 'utf8')),
  );
  const atPack = ['prepack', 'prepare', 'postpack', 'preinstall', 'install', 'postinstall'];
  expect(Object.keys(scripts).filter((name) => atPack.includes(name))).toEqual([]);
  const { stdout } = await execa('npm', ['pack', '--json', '--loglevel=error', '--pack-destination', target], {
    cwd: root,
    timeout: RUN_LIMIT_MS,
  });
  const Packed = v.array(v.object({ filename: v.string(), files: v.array(v.object({ path: v.string() })) }));
  const [packed] = v.parse(Packed, JSON.parse(stdout));
  const files = packed?.files.map((file) => file.path) ?? [];
  expect(files).toEqual(
    expect.arrayContaining([
      'dist/testing/index.js',
      'dist/testing/index.d.ts',
      'src/testing/README.md',
      'vm-images/packages.json',
      'vm-images/probes/stall-probe.c',
      'vm-images/recipes/debian-13.json',
    ]),
  );
  expect(files.filter((file) => /^(build|test)\//.test(file) || file.endsWith('.deb'))).toEqual([]);
  return path.join(target, packed?.filename ?? '');
}

/** The hook and the test of src/testing/README.md. */
async function examples(): Promise<readonly [string, string]> {
  const readme = await readFile(path.join(root, 'src/testing/README.md'), 'utf8');
  const block = (language: string): string => {
    const blocks = [...readme.matchAll(new RegExp(`^\`\`\`${language}\\n([^]*?)^\`\`\`$`, 'gm'))];
    expect(blocks).toHaveLength(1);
    return blocks[0]?.[1] ?? '';
  };
  return [block('sh'), block('js')];
}
