// What is looked at in a guest that came up from a backup, by a scripted agent.
import { expect, test } from 'vitest';
import type { FreezeReport, WriterReport } from '../../../../src/consistency.js';
import type { BootOptions } from '../../../../src/host/boot/boot-options.js';
import { checkGuest } from '../../../../src/host/boot/guest-checks.js';
import type { AgentCaller } from '../../../../src/qga/client.js';
import { DeadlineError } from '../../../../src/errors.js';
import { RemoteError } from '../../../../src/rpc/errors.js';
import { filesystemReport, freezeReport, writerReport } from '../../../support/freeze-reports.js';
import { runOf } from '../../../support/runs.js';

const held = [filesystemReport('/', 'root'), filesystemReport('/srv', 'data')];
const before = freezeReport({
  filesystems: [...held, filesystemReport('/boot/efi', 'root', { held: 'none' })],
  writers: [writerReport('50-db'), writerReport('60-gone', { verdict: 'not-applicable' })],
});

interface Guest {
  readonly mounts?: readonly string[];
  /** Of the freeze in the guest that was booted. */
  readonly report?: FreezeReport;
  readonly forbidden?: readonly string[];
  /** What a command line ends with; undefined if it does not end. */
  readonly exec?: (line: string) => { readonly exitcode: number; readonly out?: string } | undefined;
  readonly stock?: boolean;
  /** It answers its first questions too late. */
  readonly late?: number;
  readonly hasShell?: boolean;
}

/** An agent whose answers are these; `asked` counts commands. */
function agentOf({
  mounts = ['/', '/srv'],
  report = before,
  forbidden = [],
  exec,
  stock = false,
  late = 0,
  hasShell = true,
}: Guest) {
  const asked = new Map<string, number>();
  const names = ['guest-exec', 'guest-exec-status', ...(stock ? [] : ['bridge-freeze', 'bridge-thaw'])];
  let line = '';
  const answers: Readonly<Record<string, (args: Record<string, unknown>) => unknown>> = {
    'guest-info': () => ({
      version: '1',
      supported_commands: names.map((name) => ({ name, enabled: !forbidden.includes(name), 'success-response': true })),
    }),
    'guest-get-fsinfo': () => mounts.map((mountpoint) => ({ name: 'vda', mountpoint, type: 'ext4', disk: [] })),
    'bridge-freeze': ({ session }) => ({ report: { ...report, session, state: 'frozen' } }),
    'bridge-thaw': ({ session }) => ({ report: { ...report, session } }),
    'bridge-status': () => ({ status: { state: 'idle' } }),
    'guest-exec': ({ arg }) => {
      line = (arg as string[])[1] ?? '';
      return { pid: 1 };
    },
    'guest-exec-status': () => {
      const end = line === 'dmesg' && exec === undefined ? { exitcode: 0 } : exec?.(line);
      if (end === undefined) return { exited: false };
      const { exitcode, out = '' } = end;
      return { exited: true, exitcode, 'out-data': Buffer.from(out).toString('base64') };
    },
  };
  const call = (name: string, args: Record<string, unknown>): Promise<unknown> => {
    asked.set(name, (asked.get(name) ?? 0) + 1);
    if (late > 0) return Promise.reject(new DeadlineError(name, late--));
    if (name === 'guest-exec' && !hasShell) return Promise.reject(new RemoteError('GenericError', 'no /bin/sh'));
    const answer = answers[name];
    if (answer === undefined) return Promise.reject(new RemoteError('CommandNotFound', `no ${name}`));
    return Promise.resolve(answer(args));
  };
  return { agent: { peer: 'agent', call } as unknown as AgentCaller, asked };
}

const check = async (guest: Guest, over: Partial<BootOptions> = {}, run = runOf(1, undefined, { guest: before })) => {
  const options: BootOptions = {
    ...{ accelerator: 'tcg', machine: undefined, memoryBytes: undefined, cpus: undefined, diskBus: undefined },
    ...{ key: undefined, qemuArgs: [], bootLimitMs: 1, checkLimitMs: 1, commands: [], ignoredMounts: [], scratch: '/' },
    ...over,
  };
  const limits = { hasEnded: () => false, signal: new AbortController().signal, onProgress: () => undefined };
  return await checkGuest(agentOf(guest).agent, run, options, limits);
};
const failures = async (...args: Parameters<typeof check>): Promise<string[]> => {
  const { checks } = await check(...args);
  return checks.filter(({ passed }) => !passed).map(({ what, detail }) => `${what}: ${detail}`);
};
const reporting = (...writers: readonly WriterReport[]): FreezeReport => ({ ...before, writers: [...writers] });

test('all is well where everything that was held can be held again', async () => {
  expect(await check({ exec: () => ({ exitcode: 0 }) })).toMatchObject({
    checks: [
      { what: 'filesystems', passed: true, detail: 'mounted: /, /srv' },
      { what: 'writers', passed: true, detail: '50-db' },
      { what: 'kernel messages', passed: true },
    ],
    notes: [],
  });
});

test('a filesystem that is not mounted is told, unless it is to be ignored', async () => {
  expect(await failures({ mounts: ['/'] })).toEqual(['filesystems: held in the backup, and not mounted: /srv']);
  expect(await failures({ mounts: ['/'] }, { ignoredMounts: ['/srv'] })).toEqual([]);
});

test('a filesystem that became read-only is told', async () => {
  const report = { ...before, filesystems: [filesystemReport('/', 'root', { held: 'read-only' }), ...held.slice(1)] };
  expect(await failures({ report })).toEqual(['writers: / became read-only']);
});

test.each([
  ['not there any more', [], 'not there'],
  ['without its application', [writerReport('50-db', { verdict: 'not-applicable' })], 'not-applicable'],
  ['not proved any more', [writerReport('50-db', { verdict: 'claimed' })], 'claimed'],
  ['failing', [writerReport('50-db', { verdict: 'failed', reason: 'refused' })], 'failed (refused)'],
])('a writer that is %s is told', async (_what, writers, verdict) => {
  const report = reporting(...writers);
  expect(await failures({ report })).toEqual([`writers: 50-db was verified in the backup, and is ${verdict}`]);
});

test('what speaks for nothing in the backup need not be there', async () => {
  const { checks, notes } = await check({ mounts: [] }, {}, runOf(1));
  expect(checks.map(({ what }) => what)).toEqual(['kernel messages']);
  expect(notes.join()).toContain('no report of its guest');
});

test('a stock qemu-ga is not asked for writers, and that is said', async () => {
  const { checks, notes } = await check({ stock: true });
  expect(checks.map(({ what }) => what)).toEqual(['filesystems', 'kernel messages']);
  expect(notes.join()).toContain('no writers');
});

test.each([
  ['that matches', { exitcode: 0, out: 'a\n42\n' }, []],
  ['that does not match', { exitcode: 0, out: '41' }, ['ask: expected ^42$, found 41']],
  ['of a command that fails', { exitcode: 3, out: '42' }, ['ask: exit code 3: 42']],
  ['that never comes', undefined, ['ask: it did not end in time']],
])('an answer %s is judged', async (_what, end, expected) => {
  const exec = (line: string) => (line === 'dmesg' ? { exitcode: 0 } : end);
  expect(await failures({ exec }, { commands: [{ line: 'ask', expect: /^42$/m }] })).toEqual(expected);
});

test('an answer that comes later is waited for', async () => {
  let tries = 0;
  const exec = (): { exitcode: number } => ({ exitcode: tries++ === 0 ? 1 : 0 });
  expect(await failures({ exec }, { commands: [{ line: 'ask', expect: undefined }], checkLimitMs: 5000 })).toEqual([]);
  expect(tries).toBeGreaterThan(1);
});

test('an agent that runs no commands refuses them, and is judged without', async () => {
  const forbidden = ['guest-exec'];
  await expect(check({ forbidden }, { commands: [{ line: 'ask', expect: undefined }] })).rejects.toMatchObject({
    code: 'E_BOOT',
    message: expect.stringContaining('does not run commands for the host') as string,
  });
  expect((await check({ forbidden })).checks.map(({ what }) => what)).toEqual(['filesystems', 'writers']);
});

test('what its kernel tells of damage is a fault', async () => {
  const exec = () => ({ exitcode: 0, out: '[1.0] fine\n[2.0] EXT4-fs error (device vda): bad block bitmap\n' });
  expect(await failures({ exec })).toEqual(['kernel messages: [2.0] EXT4-fs error (device vda): bad block bitmap']);
});

test.each<[string, Guest, string]>([
  ['without a shell', { hasShell: false }, 'no /bin/sh'],
  ['whose agent runs no commands', { forbidden: ['guest-exec'] }, 'does not run commands'],
  ['whose dmesg is refused', { exec: () => ({ exitcode: 1 }) }, 'exit code 1'],
  ['whose dmesg does not end', { exec: () => undefined }, 'did not end in time'],
])('a guest %s is not said to be free of damage, nor to be bad', async (_what, guest, why) => {
  const { checks, notes } = await check(guest);
  expect(checks.map(({ what, passed }) => [what, passed])).toEqual([
    ['filesystems', true],
    ['writers', true],
  ]);
  expect(notes).toEqual([expect.stringMatching(`^the messages of its kernel were not read: .*${why}`) as string]);
});

test('an agent that is slow to answer while applications start is asked again', async () => {
  expect(await failures({ late: 2 }, { checkLimitMs: 10_000 })).toEqual([]);
  await expect(check({ late: 99 })).rejects.toBeInstanceOf(DeadlineError);
});
