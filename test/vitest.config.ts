// The test projects. unit needs nothing; conformance Debian's qemu-ga; integration root and loop devices; vm a QEMU that
// boots; ordinary (npm run test:ordinary, not part of npm test) the same, and guests as people have them. Guests share two
// cores, so their files run one after another.
import { defineConfig } from 'vitest/config';

const project = (name: string, testTimeout: number, options: object = {}) => ({
  test: {
    name,
    include: [`test/${name}/**/*.test.ts`],
    testTimeout,
    hookTimeout: testTimeout,
    // Longer than a busy machine may stand still: what must be quick is measured, not polled for.
    expect: { poll: { timeout: 5000 } },
    ...options,
  },
});

/** Emulated domains with the stock agent and with ours, and hundreds of freezes: left to `npm run test:thorough`. */
const thorough = ['libvirt-failures', 'libvirt-flows', 'rest'].map((name) => `test/vm/${name}.test.ts`);

export default defineConfig({
  root: new URL('..', import.meta.url).pathname,
  test: {
    reporters: ['default'],
    projects: [
      // Most of them wait, as for a time limit; more would take the processors from guests that run beside them.
      project('unit', 10_000, { maxWorkers: 2 }),
      project('conformance', 60_000, { fileParallelism: false }),
      project('integration', 60_000, { fileParallelism: false }),
      // A hook may build an image, or wait for another runner that does.
      project('vm', 300_000, {
        fileParallelism: false,
        hookTimeout: 900_000,
        exclude: process.env['FSB_THOROUGH'] === '1' ? [] : thorough,
      }),
      project('ordinary', 300_000, { fileParallelism: false }),
    ],
  },
});
