// The npm package as users install it, into a clean prefix: the host tool, its manual page, and what programs import.
// The guests of `fsfreeze-bridge/testing` are booted from it in vm/outside.test.ts.
import { execa } from 'execa';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { PACKAGE_VERSION } from '../../src/version.js';
import { requires } from '../support/requires.js';
import { scratch, type Scratch } from '../support/scratch.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const INSTALL_LIMIT_MS = 120_000;

/** What is exported, imported by a program beside the package. */
const IMPORTS = `
const { QmpClient } = await import('fsfreeze-bridge/qmp-client');
const { bootGuest, AgentChannel } = await import('fsfreeze-bridge/testing');
console.log(JSON.stringify([QmpClient.connect, bootGuest, AgentChannel].map((each) => typeof each)));
`;

requires('npm')('the npm package in a clean prefix', () => {
  let folder: Scratch;
  let prefix: string;

  beforeAll(async () => {
    folder = scratch();
    prefix = folder.path('prefix');
    mkdirSync(folder.path('called-from'));
    const packing = ['pack', '--silent', '--pack-destination', folder.dir];
    const { stdout } = await execa('npm', packing, { cwd: root, timeout: INSTALL_LIMIT_MS });
    const installing = ['install', '--global', '--prefix', prefix, '--prefer-offline', '--no-audit', '--no-fund'];
    await execa('npm', [...installing, folder.path(stdout.trim())], { cwd: folder.dir, timeout: INSTALL_LIMIT_MS });
  }, INSTALL_LIMIT_MS);
  afterAll(() => {
    folder[Symbol.dispose]();
  });

  async function run(...words: readonly string[]) {
    const { exitCode, stdout, stderr } = await execa(join(prefix, 'bin/fsfreeze-bridge'), words, {
      cwd: folder.path('called-from'),
      env: { NODE_OPTIONS: '' },
      stdin: 'ignore',
      reject: false,
      timeout: 30_000,
    });
    return { exitCode, stdout, stderr };
  }

  test('has a host tool that tells its version and its commands', async () => {
    expect(await run('--version')).toEqual({ exitCode: 0, stdout: PACKAGE_VERSION, stderr: '' });
    const { exitCode, stdout } = await run('--help');
    expect([exitCode, stdout]).toEqual([0, expect.stringContaining('fsfreeze-bridge snapshot') as string]);
  });

  test('lists the sets of a VM that has none', async () => {
    const state = folder.path('state');
    const vm = ['--vm', 'vm1', '--qmp', '/nowhere/qmp.sock', '--state-dir', state];
    const { exitCode, stdout, stderr } = await run('snapshot', 'list', ...vm, '--json');
    expect([exitCode, stderr, JSON.parse(stdout)]).toEqual([0, '', { vm: 'vm1', sets: [], unreadable: [] }]);
    // It looked, and made nothing.
    expect(existsSync(state)).toBe(false);
  });

  test('has its manual page where man looks', () => {
    const page = readFileSync(join(prefix, 'share/man/man8/fsfreeze-bridge.8'), 'utf8');
    expect(page).toMatch(/^\.TH FSFREEZE-BRIDGE 8 /);
  });

  test('exports the QMP client and the guests for tests', async () => {
    const script = join(prefix, 'lib/imports.mjs');
    writeFileSync(script, IMPORTS);
    const { stdout } = await execa(process.execPath, [script], { timeout: 30_000 });
    expect(JSON.parse(stdout)).toEqual(['function', 'function', 'function']);
  });

  test('holds neither what was built for Debian nor a module of the host side, which is bundled', () => {
    const installed = join(prefix, 'lib/node_modules/fsfreeze-bridge');
    expect(existsSync(join(installed, 'dist/testing/index.js'))).toBe(true);
    for (const name of ['build', 'test', 'dist/host', 'dist/cli/bridge', 'qga/package/node_modules']) {
      expect(existsSync(join(installed, name)), name).toBe(false);
    }
  });
});
