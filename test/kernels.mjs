// npm run test:kernels: what happens inside a guest, on every kernel, and what the service manager does, on every recipe.
// Not part of `npm test`, which takes one or two of them (test/README.md).
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const GUEST_SIDE = ['agent', 'order', 'bad-disk', 'threats', 'vsock', 'units'];
const files = GUEST_SIDE.map((name) => `test/vm/${name}.test.ts`);
const { status, error } = spawnSync(
  'npx',
  // -t: not the whole pass in QEMU that some of them have.
  ['vitest', 'run', '--config', 'test/vitest.config.ts', '--project', 'vm', '-t', 'kernel |debian-', ...files],
  {
    cwd: fileURLToPath(new URL('..', import.meta.url)),
    stdio: 'inherit',
    env: { ...process.env, FSB_KERNELS: '6.1,6.12,7.2', FSB_RECIPES: 'debian-12,debian-13' },
  },
);
if (error) console.error(String(error));
process.exitCode = status ?? 1;
