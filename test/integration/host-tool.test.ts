// The host tool as users get it: the one file that package.json names, without any module beside it. It says what its
// source says, and reads nothing of the folder it is called in.
import { execa } from 'execa';
import { copyFileSync, mkdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { HOST_TOOL } from '../../vm-images/demo/bridge.js';
import { scratch, type Scratch } from '../support/scratch.js';

const root = new URL('../..', import.meta.url);
let folder: Scratch;
let tool: string;
/** The same, not bundled. */
const modules = fileURLToPath(new URL('dist/cli/bridge/main.js', root));
beforeAll(async () => {
  folder = scratch();
  mkdirSync(folder.path('package/dist'), { recursive: true });
  mkdirSync(folder.path('called-from'));
  tool = folder.path('package/dist/fsfreeze-bridge.cjs');
  copyFileSync(HOST_TOOL, tool);
  copyFileSync(new URL('package.json', root), folder.path('package/package.json'));
  // yargs looks for one from where it is called; who opened this one would never be done.
  await execa('mkfifo', [folder.path('called-from/package.json')]);
});
afterAll(() => {
  folder[Symbol.dispose]();
});

async function run(program: string, words: readonly string[]) {
  const options = { reject: false, cwd: folder.path('called-from'), stdin: 'ignore', timeout: 30_000 } as const;
  const { exitCode, stdout, stderr } = await execa(process.execPath, [program, ...words], options);
  return { exitCode, stdout, stderr };
}

describe('the host tool', () => {
  test('is what package.json names', () => {
    const { bin } = JSON.parse(readFileSync(new URL('package.json', root), 'utf8')) as { bin: Record<string, string> };
    expect(new URL(bin['fsfreeze-bridge'] ?? '', root).pathname).toBe(HOST_TOOL);
  });

  test.each(
    [
      ['--version'],
      ['--help'],
      ['snapshot', '--help'],
      ['snapshot', 'create', '--help'],
      ['recover', '--help'],
      ['nothing'],
      ['snapshot'],
      ['snapshot', 'create', '--nmae', 'x', '--levle', 'y'],
      ['snapshot', 'create', '--require', 'all'],
      ['snapshot', 'commit'],
      ['status', '--qmp', '/nowhere/qmp.sock', '--json'],
      ['status', '--vm', 'libvirt:nobody', '--connect', 'nobody:///'],
    ].map((words) => ({ words, line: words.join(' ') })),
  )('says what its modules say: $line', async ({ words }) => {
    const bundled = await run(tool, words);
    expect(bundled.stdout + bundled.stderr).not.toBe('');
    expect(bundled).toEqual(await run(modules, words));
  });
});
