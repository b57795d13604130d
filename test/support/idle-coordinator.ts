// A freeze path on which nothing happens, for tests of what stands above it: each replaces what it is about.
import type { LocalCoordinator } from '../../src/freeze/options.js';

export const idleCoordinator: LocalCoordinator = {
  session: undefined,
  lastReport: undefined,
  freeze: () => Promise.reject(new Error('not in this test')),
  status: () => Promise.resolve({ state: 'idle' }),
  writers: () => Promise.resolve([]),
  complete: () => Promise.reject(new Error('not in this test')),
  kept: [],
  unreleased: [],
  warmUp: () => Promise.resolve(),
  hungFilesystems: () => Promise.resolve([]),
  close: () => Promise.resolve(),
};
