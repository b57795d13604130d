// Fuzzed bytes to Debian's qemu-ga and to ours: every answer the same, or of a kind that differs on purpose. More of
// them: `npm run fuzz -- --peer --count N --seed S`.
import { existsSync } from 'node:fs';
import { expect, test } from 'vitest';
import { compareWithPeer } from '../fuzz/peer.js';
import { qemuGa } from './peers.js';

const COUNT = 2000;
const SEED = 1;

test.skipIf(!existsSync(qemuGa))(
  `${COUNT} fuzzed inputs are answered as ${qemuGa} does`,
  { timeout: 120_000 },
  async () => {
    const { withheld, accepted, unknown } = await compareWithPeer({ count: COUNT, seed: SEED });
    expect(Object.fromEntries(unknown)).toEqual({});
    expect(withheld).toBeLessThan(COUNT / 10);
    const stale = [...accepted].filter(([, count]) => count === 0).map(([{ name }]) => name);
    expect(stale, 'stale entries of test/fuzz/peer-differences.ts').toEqual([]);
  },
);
