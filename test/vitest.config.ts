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

export default defineConfig({
  root: new URL('..', import.meta.url).pathname,
  test: {
    reporters: ['default'],
    projects: [
      project('unit', 10_000),
      project('conformance', 60_000, { fileParallelism: false }),
      project('integration', 60_000, { fileParallelism: false }),
      project('vm', 300_000, { fileParallelism: false }),
      project('ordinary', 300_000, { fileParallelism: false }),
    ],
  },
});
