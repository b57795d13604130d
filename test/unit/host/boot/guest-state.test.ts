// What of a guest's state is its own doing, by a scripted monitor.
import { expect, test } from 'vitest';
import type { GuestProcess } from '../../../../src/host/boot/guest-process.js';
import { stateOf } from '../../../../src/host/boot/guest-state.js';
import { CutError, UnreachableError } from '../../../../src/errors.js';

interface Scripted {
  readonly status?: string;
  readonly stats?: object;
  readonly ioStatus?: string;
  /** QEMU has ended: by this, or by an error. */
  readonly ended?: string | CutError;
}

function guestOf({ status = 'running', stats = {}, ioStatus, ended }: Scripted): GuestProcess {
  const counts = { wr_bytes: 0, wr_operations: 0, rd_operations: 7, ...stats };
  const answers: Readonly<Record<string, unknown>> = {
    'query-status': { status, running: status === 'running' },
    'query-blockstats': [{ stats: counts }, { stats: { ...counts, failed_rd_operations: 0, failed_wr_operations: 0 } }],
    'query-block': [{ device: '', removable: false, 'io-status': ioStatus }],
  };
  const execute = (command: string): Promise<unknown> =>
    ended === undefined
      ? Promise.resolve(answers[command])
      : Promise.reject(new UnreachableError('E_MONITOR_LOST', 'the monitor is gone'));
  const monitor = { execute } as unknown as GuestProcess['monitor'];
  return {
    monitor,
    pid: 1,
    hasEnded: () => ended !== undefined,
    ending: () => (typeof ended === 'string' ? Promise.resolve(ended) : Promise.reject(ended ?? new Error('it runs'))),
    letGo: () => undefined,
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
const state = async (scripted: Scripted, signal = new AbortController().signal) => {
  return await stateOf(guestOf(scripted), signal);
};

test('it runs, panics or ends by itself', async () => {
  expect(await state({})).toEqual({ hasPanicked: false, reads: 14 });
  expect(await state({ status: 'guest-panicked' })).toMatchObject({ hasPanicked: true });
  expect(await state({ ended: 'guest-reset' })).toMatchObject({ endedBy: 'guest-reset', hasPanicked: false });
  expect(await state({ ended: 'guest-panic' })).toMatchObject({ hasPanicked: true });
});

test.each<[string, Scripted, string, string]>([
  ['whose images cannot grow', { status: 'io-error', ioStatus: 'nospace' }, 'E_NO_SPACE', '--scratch'],
  ['whose images give errors', { status: 'io-error', ioStatus: 'failed' }, 'E_BOOT', 'could not read'],
  ['whose nvme failed to write', { stats: { failed_wr_operations: 1 } }, 'E_BOOT', 'could not read'],
  ['whose nvme failed to read', { stats: { failed_rd_operations: 1 } }, 'E_BOOT', 'could not read'],
  ['that KVM gave up', { status: 'internal-error' }, 'E_BOOT', 'internal error'],
  ['whose QEMU was killed', { ended: new CutError('E_BOOT', 'ended by SIGKILL') }, 'E_BOOT', 'SIGKILL'],
])('a guest %s is not judged', async (_what, scripted, code, text) => {
  await expect(state(scripted)).rejects.toMatchObject({ code, message: expect.stringContaining(text) as string });
});

test('one whose tool is interrupted has no state, also where QEMU ended with it', async () => {
  const signal = AbortSignal.abort('SIGTERM');
  for (const scripted of [{}, { ended: 'guest-shutdown' }]) {
    await expect(state(scripted, signal)).rejects.toMatchObject({ code: 'E_INTERRUPTED' });
  }
});
