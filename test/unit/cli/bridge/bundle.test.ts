// What goes into the host tool's one file: no code of the agent or of the fixture, nothing that is read beside it.
import { builtinModules } from 'node:module';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { expect, test } from 'vitest';

const root = fileURLToPath(new URL('../../../../', import.meta.url));

test("the host tool's bundle is one file, without code of the agent, of the freeze path or of the fixture", async () => {
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: ['src/cli/bridge/main.ts'],
    bundle: true,
    platform: 'node',
    format: 'cjs',
    define: { 'import.meta.url': '__yargsUrl' },
    write: false,
    outdir: 'dist',
    metafile: true,
    logLevel: 'silent',
  });
  const modules = Object.keys(metafile.inputs);
  expect(modules).toContain('src/host/create/snapshot-create.ts');
  expect(modules.filter((path) => /^src\/(agent|freeze|testing|cli\/agent)\//.test(path))).toEqual([]);
  expect(modules.filter((path) => /node_modules\/(chokidar|pino)\//.test(path))).toEqual([]);
  const outputs = Object.values(metafile.outputs);
  expect(outputs).toHaveLength(1);
  const outside = outputs[0]?.imports.map(({ path }) => path.replace(/^node:/, '')) ?? [];
  expect(outside.filter((name) => !builtinModules.includes(name))).toEqual([]);
});
