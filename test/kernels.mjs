// npm run test:kernels: what happens inside a guest, on every kernel, what the service manager does, on every recipe, and
// every step and peer of suites that have many. Not part of `npm test`, which takes some of them (test/README.md).
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const inVm = (name) => `test/vm/${name}.test.ts`;
const GUEST_SIDE = ['agent', 'order', 'bad-disk', 'hung-disk', 'threats', 'vsock', 'units', 'in-guest'].map(inVm);
const MANY_STEPS = [
  ...['snapshot-prune', 'recover', 'backup-failures'].map((name) => `test/integration/${name}.test.ts`),
  ...['libvirt-failures', 'libvirt-flows'].map(inVm),
];

function run(env, ...words) {
  const { status, error } = spawnSync('npx', ['vitest', 'run', '--config', 'test/vitest.config.ts', ...words], {
    cwd: fileURLToPath(new URL('..', import.meta.url)),
    stdio: 'inherit',
    env: { ...process.env, ...env },
  });
  if (error) console.error(String(error));
  if (status !== 0) process.exitCode = 1;
}

// -t: not the whole pass in QEMU that some of them have.
const everyKind = { FSB_KERNELS: '6.1,6.12,7.2', FSB_RECIPES: 'debian-12,debian-13' };
run(everyKind, '--project', 'vm', '-t', 'kernel |debian-', ...GUEST_SIDE);
run({ FSB_THOROUGH: '1' }, ...MANY_STEPS);
