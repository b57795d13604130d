// npm run test:thorough: what `npm test` leaves out (test/README.md). What happens inside a guest, on every kernel; what the
// service manager does, on every recipe (this much is `npm run test:kernels`); and all of the suites that `npm test` does in
// part.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const inVm = (name) => `test/vm/${name}.test.ts`;
const GUEST_SIDE = [
  'agent',
  'order',
  'bad-disk',
  'hung-disk',
  'threats',
  'vsock',
  'units',
  'in-guest',
  'user-mode',
].map(inVm);
/** `npm test` leaves these out as a whole. */
const LEFT_OUT = ['libvirt-failures', 'libvirt-flows', 'rest'].map(inVm);

/** Those that ask for a part, by support/variants.ts. */
function doneInPart() {
  return ['vm', 'integration']
    .flatMap((project) => readdirSync(path.join(root, 'test', project)).map((name) => `test/${project}/${name}`))
    .filter((file) => file.endsWith('.test.ts'))
    .filter((file) => /\b(oneIn|rarely|isThorough)\b/.test(readFileSync(path.join(root, file), 'utf8')));
}

function run(env, ...words) {
  const { status, error } = spawnSync('npx', ['vitest', 'run', '--config', 'test/vitest.config.ts', ...words], {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...env },
  });
  if (error) console.error(String(error));
  if (status !== 0) process.exitCode = 1;
}

// -t: not the whole pass in QEMU that some of them have.
const everyKind = { FSB_KERNELS: '6.1,6.12,7.2', FSB_RECIPES: 'debian-12,debian-13' };
run(everyKind, '--project', 'vm', '-t', 'kernel |debian-', ...GUEST_SIDE);
if (process.argv[2] !== 'kernels') run({ FSB_THOROUGH: '1' }, ...LEFT_OUT, ...doneInPart());
