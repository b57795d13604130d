// The npm package as users install it, into a clean prefix: the host tool, its manual page, and what programs import.
// The guests of `fsfreeze-bridge/testing` are booted from it in vm/outside.test.ts.
import { execa } from 'execa';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PACKAGE_VERSION } from '../../src/version.js';
import { requires } from '../support/requires.js';
import { scratch, type Scratch } from '../support/scratch.js';

type Resolution = 'nodenext' | 'bundler';

const root = fileURLToPath(new URL('../..', import.meta.url));
const INSTALL_LIMIT_MS = 120_000;

/** A program beside the package that imports from all entries. */
const IMPORTS = `
const { QmpClient } = await import('fsfreeze-bridge/qmp-client');
const { bootGuest, AgentChannel } = await import('fsfreeze-bridge/testing');
const { serveWriter, NotApplicable } = await import('fsfreeze-bridge/writer');
console.log(JSON.stringify([QmpClient.connect, bootGuest, AgentChannel, serveWriter, NotApplicable].map((each) => typeof each)));
`;

/** Names that the manuals' examples leave out: every promised one is there, and none of the internals. */
const NAMES = `
import { BridgeError, QmpError, RemoteError } from 'fsfreeze-bridge/qmp-client';
import type { ErrorClass, Facts, Outcome, QmpClient, QmpConnectOptions, QmpEvent, QmpEventFilter } from 'fsfreeze-bridge/qmp-client';
import type { QmpEventListener, QmpExecuteOptions, QmpLogEntry, QmpVersion } from 'fsfreeze-bridge/qmp-client';
import * as testing from 'fsfreeze-bridge/testing';
import type { Capability, Guest, GuestKind, GuestProcess, ProbedGuest, QemuGuest, UserModeGuest } from 'fsfreeze-bridge/testing';
import { serveWriter, type WriterHandlers, type WriterOutcome, type WriterStreams } from 'fsfreeze-bridge/writer';

const handlers: WriterHandlers = { prepare() {}, freeze: async () => {}, thaw: (outcome: WriterOutcome) => void outcome };
export const serving = (streams: WriterStreams): Promise<void> => serveWriter(handlers, streams);
// @ts-expect-error: whoever holds lets go
await serveWriter({ prepare() {}, freeze() {} });
export function told(error: unknown): string {
  if (error instanceof QmpError) return \`\${error satisfies RemoteError} \${error.class satisfies ErrorClass}\`;
  // Both doors lead to the same classes.
  if (error instanceof testing.BridgeError) return (error satisfies BridgeError).outcome satisfies Outcome;
  return error instanceof testing.UnreachableError || error instanceof testing.DeadlineError ? error.code : 'other';
}
export async function listen(client: QmpClient, filter: QmpEventFilter): Promise<Facts> {
  const version: QmpVersion = client.version;
  const limit: QmpExecuteOptions = { timeoutMs: 5 };
  const listener: QmpEventListener = client.listen('STOP', filter);
  const event: QmpEvent = await listener.next(5);
  // @ts-expect-error: an option is given or left out
  await client.execute('stop', undefined, { timeoutMs: undefined });
  // @ts-expect-error: the client's own
  listener.offer(event, 1);
  // @ts-expect-error: the client's own
  listener.end(new Error());
  return { version, answer: await client.execute('stop', {}, limit), ...event.data };
}
export const logging = (log: (entry: QmpLogEntry) => void): QmpConnectOptions => ({ log, maxMessageBytes: 1 });
export async function use(guest: UserModeGuest | QemuGuest, needs: readonly Capability[]): Promise<string> {
  guest.requires(...needs);
  const same: Guest & ProbedGuest = guest;
  const kind: GuestKind = same.kind;
  const running: GuestProcess = await same.start('true');
  if (guest.kind === 'qemu') return (guest.monitor satisfies QmpClient).path;
  // @ts-expect-error: a user-mode guest has no monitor
  guest.monitor;
  // @ts-expect-error: the fixture's own
  guest.attached;
  const { host }: { readonly host: string } = await guest.sharedFolder();
  return \`\${kind} \${(await running.wait()).stdout} \${host}\`;
}
// @ts-expect-error: there is no such kind
await testing.bootGuest({ kind: 'container' });
// @ts-expect-error: the fixture's own
testing.buildImage;
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

  test("has the guest's command", async () => {
    const { stdout } = await execa(join(prefix, 'bin/fsfreeze-snapshot'), ['--version'], { env: { NODE_OPTIONS: '' } });
    expect(stdout).toBe(`fsfreeze-snapshot ${PACKAGE_VERSION}`);
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

  test('exports the QMP client, the guests for tests and the writer for applications', async () => {
    const script = join(prefix, 'lib/imports.mjs');
    writeFileSync(script, IMPORTS);
    const { stdout } = await execa(process.execPath, [script], { timeout: 30_000 });
    expect(JSON.parse(stdout)).toEqual(Array.from({ length: 5 }, () => 'function'));
  });

  describe('has types', () => {
    let consumer: string;

    beforeAll(() => {
      consumer = join(prefix, 'lib/consumer');
      mkdirSync(consumer);
      const installed = join(prefix, 'lib/node_modules/fsfreeze-bridge');
      const client = readFileSync(join(installed, 'dist/qmp/index.d.ts'), 'utf8').replaceAll(/^ \* ?/gm, '');
      const manual = readFileSync(join(installed, 'src/testing/README.md'), 'utf8');
      writeFileSync(join(consumer, 'qmp-client.mts'), example(client, 'ts'));
      writeFileSync(join(consumer, 'hook.test.mjs'), example(manual, 'js'));
      writeFileSync(join(consumer, 'guest.mts'), example(manual, 'ts'));
      writeFileSync(join(consumer, 'names.mts'), NAMES);
    });

    test.each(['nodenext', 'bundler'] as const)(
      'with which a strict project compiles the manuals’ examples (%s)',
      (resolution) => {
        expect(complaints(consumer, resolution)).toEqual([]);
      },
    );
  });

  test('holds neither what was built for Debian nor a module of the host side, which is bundled', () => {
    const installed = join(prefix, 'lib/node_modules/fsfreeze-bridge');
    expect(existsSync(join(installed, 'dist/testing/index.js'))).toBe(true);
    for (const name of ['build', 'test', 'dist/host', 'dist/cli/bridge', 'qga/package/node_modules']) {
      expect(existsSync(join(installed, name)), name).toBe(false);
    }
  });
});

/** The one code block of a language in a manual. */
function example(manual: string, language: string): string {
  const blocks = [...manual.matchAll(new RegExp(`^\`\`\`${language}\\n([^]*?)^\`\`\`$`, 'gm'))].map(([, code]) => code);
  expect(blocks).toHaveLength(1);
  return blocks[0] ?? '';
}

/**
 * The errors that TypeScript finds in the consumer and in the package's own declarations. Those of other packages are not
 * checked, which would take ten times as long.
 */
function complaints(consumer: string, resolution: Resolution): string[] {
  const options: ts.CompilerOptions = {
    ...{ strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true, skipLibCheck: false },
    ...{ noEmit: true, allowJs: true, checkJs: true, target: ts.ScriptTarget.ES2023 },
    ...(resolution === 'nodenext'
      ? { module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext }
      : { module: ts.ModuleKind.Preserve, moduleResolution: ts.ModuleResolutionKind.Bundler }),
    ...{ types: ['node'], typeRoots: [join(root, 'node_modules/@types')] },
  };
  const files = ['qmp-client.mts', 'hook.test.mjs', 'guest.mts', 'names.mts'].map((name) => join(consumer, name));
  const program = ts.createProgram(files, options);
  const ours = program.getSourceFiles().filter(({ fileName }) => /\/(consumer|fsfreeze-bridge\/dist)\//.test(fileName));
  expect(ours.length).toBeGreaterThan(files.length);
  const found = [
    ...program.getOptionsDiagnostics(),
    ...ours.flatMap((file) => [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)]),
  ];
  return found.map(
    ({ file, messageText }) => `${file?.fileName ?? ''}: ${ts.flattenDiagnosticMessageText(messageText, '; ')}`,
  );
}
