// One guest with our agent for a suite whose tests leave it as they found it: the emulator translates each restored one
// anew, which costs some five seconds of the whole machine; a user-mode guest needs three to boot.
import { afterAll, beforeAll } from 'vitest';
import type { Guest } from '../../src/testing/index.js';

/** The image and the state may have to be built first. */
const BUILD_LIMIT_MS = 500_000;

/**
 * Call it in the suite; what it gives is the guest, while tests run. It is made by `start`, and `setUp` is done once; if
 * that fails the guest ends, too.
 */
export function sharedGuest<Kind extends Guest>(
  start: () => Promise<Kind>,
  setUp?: (guest: Kind) => Promise<void>,
): () => Kind {
  let guest: Kind | undefined;
  beforeAll(async () => {
    guest = await start();
    await setUp?.(guest);
  }, BUILD_LIMIT_MS);
  afterAll(async () => {
    await guest?.[Symbol.asyncDispose]();
  });
  return () => {
    if (guest === undefined) throw new Error('the shared guest is there only while the tests of its suite run');
    return guest;
  };
}
