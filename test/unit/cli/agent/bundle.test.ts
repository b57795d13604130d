// The guest's executable holds no host code, and no library that only the host needs. Of its two programs the agent has
// nothing of the other.
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { expect, test } from 'vitest';

const root = fileURLToPath(new URL('../../../../', import.meta.url));

async function modulesOf(program: string): Promise<readonly string[]> {
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: [`src/cli/${program}/main.ts`],
    bundle: true,
    platform: 'node',
    format: 'cjs',
    write: false,
    metafile: true,
    logLevel: 'silent',
  });
  return Object.keys(metafile.inputs);
}

const ofHost = /^src\/(host|qmp|testing|cli\/bridge)\/|node_modules\/yargs\//;

test("the agent's bundle holds no code of the host, of QMP, of the fixture or of the command", async () => {
  const modules = await modulesOf('agent');
  expect(modules).toContain('src/freeze/coordinator.ts');
  expect(modules.filter((path) => ofHost.test(path))).toEqual([]);
  expect(modules.filter((path) => /cli\/snapshot\/|rehearsal/.test(path))).toEqual([]);
});

test("the bundle of the guest's command holds no code of the host, of QMP or of the fixture", async () => {
  const modules = await modulesOf('snapshot');
  expect(modules).toContain('src/freeze/session/rehearsal.ts');
  expect(modules.filter((path) => ofHost.test(path))).toEqual([]);
});
