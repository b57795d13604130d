// Whether a guest that was started from a run is up, lost, or nobody's to throw away.
import { afterEach, beforeEach, expect, test } from 'vitest';
import { UnreachableError } from '../../../../src/errors.js';
import type { GuestProcess } from '../../../../src/host/boot/guest-process.js';
import { comesUp, type UpOptions } from '../../../../src/host/start/comes-up.js';
import { scratch, type Scratch } from '../../../support/scratch.js';

let folder: Scratch;
beforeEach(() => {
  folder = scratch();
});
afterEach(() => {
  folder[Symbol.dispose]();
});

interface Scripted {
  readonly status?: string;
  readonly reads?: number;
  readonly writes?: number;
  readonly ended?: string;
}

function guestOf({ status = 'running', reads = 7, writes = 0, ended }: Scripted): GuestProcess {
  const stats = { wr_bytes: 0, wr_operations: writes, rd_operations: reads };
  const answers: Readonly<Record<string, unknown>> = {
    'query-status': { status, running: status === 'running' },
    'query-blockstats': [{ stats }],
  };
  const execute = (command: string): Promise<unknown> =>
    ended === undefined
      ? Promise.resolve(answers[command])
      : Promise.reject(new UnreachableError('E_MONITOR_LOST', 'the monitor is gone'));
  return {
    pid: 1,
    monitor: { execute } as unknown as GuestProcess['monitor'],
    hasEnded: () => ended !== undefined,
    ending: () => Promise.resolve(ended),
    letGo: () => undefined,
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
const result = async (scripted: Scripted, over: Partial<UpOptions> = {}) =>
  await comesUp(guestOf(scripted), {
    ...{ agentSocket: folder.path('agent.sock'), limitMs: 300, stallMs: undefined },
    ...{ signal: new AbortController().signal, onProgress: () => undefined },
    ...over,
  });

test('one that ends, panics or hangs before it wrote is lost', async () => {
  expect(await result({ ended: 'guest-shutdown' })).toMatchObject({ isOver: true });
  expect(await result({ status: 'guest-panicked' })).toMatchObject({ isOver: true });
  const hangs = { stallMs: 100, limitMs: 60_000 };
  expect(await result({}, hangs)).toMatchObject({ why: expect.stringContaining('did not read') as string });
  expect(await result({ reads: 0 }, { ...hangs, agentSocket: undefined })).toMatchObject({ isOver: true });
});

test('one that wrote, or only takes its time, is left to whoever looks at it', async () => {
  expect(await result({ status: 'guest-panicked', writes: 1 })).toMatchObject({
    notes: [expect.stringMatching(/panicked.*: look at it/) as string],
  });
  expect(await result({ writes: 1 }, { stallMs: 100, limitMs: 60_000 })).toHaveProperty('notes.0');
  expect(await result({})).toEqual({ notes: ['no agent answered within 0 s: look at it'] });
});

test('of one without an agent nothing is waited for', async () => {
  const notes = ['its guest is not known to have an agent: whether it is up nobody told'];
  expect(await result({ reads: 0 }, { agentSocket: undefined })).toEqual({ notes });
  expect(await result({ reads: 1 }, { agentSocket: undefined, stallMs: 60_000 })).toEqual({ notes });
});
