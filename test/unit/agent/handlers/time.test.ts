import { existsSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { timeHandlers } from '../../../../src/agent/handlers/time.js';
import { context, madeUpGuest, type MadeUpGuest, type Tools } from '../../../support/guest-sources.js';

let guest: MadeUpGuest | undefined;
const make = (tools: Tools = {}, compat?: '7.2'): MadeUpGuest => (guest = madeUpGuest(tools, compat));
const ran = (): readonly string[] => (guest?.calls ?? []).map(({ words }) => words.join(' '));

describe('time', () => {
  const set = async (made: MadeUpGuest, time?: number | bigint) =>
    await timeHandlers(made.sources)['guest-set-time']({ time }, context);

  test('is set to the microsecond, and then the hardware clock', async () => {
    const made = make({ 'date --set=@1795185597.263431': {}, '/sbin/hwclock -w': {} });
    expect(await set(made, 1795185597263431789n)).toEqual({});
    expect(ran()).toEqual(['date --set=@1795185597.263431', '/sbin/hwclock -w']);
  });

  test('is taken from the hardware clock if none is given', async () => {
    await set(make({ '/sbin/hwclock -s': {} }));
    expect(ran()).toEqual(['/sbin/hwclock -s']);
  });

  test.each([-1, 3155760000000000000n, 9223372036854775807n])('%s is refused', async (time) => {
    await expect(set(make(), time)).rejects.toThrow('Invalid time');
    expect(ran()).toEqual([]);
  });

  test('says what failed', async () => {
    await expect(set(make({}), 0)).rejects.toThrow(`Failed to set time to guest: cannot run 'date'`);
    const refused = make({ 'date --set=@0.000000': { exitCode: 1, output: 'date: no\n' } });
    await expect(set(refused, 0)).rejects.toThrow('Failed to set time to guest: date: no');
    const said = 'date: cannot set date: Operation not permitted\nThu Jan  1 00:00:00 UTC 1970\n';
    await expect(set(make({ 'date --set=@0.000000': { exitCode: 1, output: said } }), 0)).rejects.toThrow(
      /^Failed to set time to guest: Operation not permitted$/,
    );
    await expect(set(make())).rejects.toThrow(
      `child process has failed to set hardware clock to system time: failed to exec '/sbin/hwclock': No such file or directory (package util-linux-extra, util-linux on RHEL)\n`,
    );
    await expect(set(make({ '/sbin/hwclock -s': { exitCode: 1, output: 'hwclock: no RTC\n' } }))).rejects.toThrow(
      'child process has failed to set hardware clock to system time: hwclock: no RTC\n',
    );
    await expect(set(make({ '/sbin/hwclock -s': { exitCode: 3 } }))).rejects.toThrow(': exit status 3');
    if (!existsSync('/sbin/hwclock')) return;
    await expect(set(make({ '/sbin/hwclock -s': { exitCode: 1, output: 'x' } }, '7.2'))).rejects.toThrow(
      /^hwclock failed to set hardware clock to system time$/,
    );
  });

  test.each([
    ['+0000 UTC', { zone: 'UTC', offset: 0 }],
    ['-0000 UTC', { zone: 'UTC', offset: 0 }],
    ['+0530 IST', { zone: 'IST', offset: 19800 }],
    ['-0330 NST', { zone: 'NST', offset: -12600 }],
    ['+0300 +03', { zone: '+03', offset: 10800 }],
  ])('zone %s', async (line, expected) => {
    const { sources } = make({ 'date +%z %Z': { stdout: `${line}\n` } });
    expect(await timeHandlers(sources)['guest-get-timezone']({}, context)).toEqual(expected);
  });
});
