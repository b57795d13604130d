// The guest's executable holds no host code, and no library that only the host needs.
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { expect, test } from 'vitest';

const root = fileURLToPath(new URL('../../../../', import.meta.url));

test("the agent's bundle holds no code of the host, of QMP or of the fixture", async () => {
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: ['src/cli/agent/main.ts'],
    bundle: true,
    platform: 'node',
    format: 'cjs',
    write: false,
    metafile: true,
    logLevel: 'silent',
  });
  const modules = Object.keys(metafile.inputs);
  expect(modules).toContain('src/freeze/coordinator.ts');
  expect(modules.filter((path) => /^src\/(host|qmp|testing|cli\/bridge)\//.test(path))).toEqual([]);
  expect(modules.filter((path) => path.includes('node_modules/yargs/'))).toEqual([]);
});
