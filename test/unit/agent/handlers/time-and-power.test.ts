import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { powerHandlers } from '../../../../src/agent/handlers/power.js';
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

describe('shutdown', () => {
  const shutdown = async (made: MadeUpGuest, mode?: string) =>
    await powerHandlers(made.sources)['guest-shutdown']({ mode }, context);
  const ok = new Proxy<Tools>({}, { get: () => ({}) });

  test.each([
    [undefined, '/sbin/poweroff', '-P'],
    ['powerdown', '/sbin/poweroff', '-P'],
    ['halt', '/sbin/halt', '-H'],
    ['reboot', '/sbin/reboot', '-r'],
  ])('%s', async (mode, program, flag) => {
    await shutdown(make(ok), mode);
    const expected = existsSync(program) ? program : `/sbin/shutdown -h ${flag} +0 hypervisor initiated shutdown`;
    expect(ran()).toEqual([expected]);
  });

  test('refuses other modes, those of an object too', async () => {
    for (const mode of ['', 'POWERDOWN', 'toString']) {
      await expect(shutdown(make(ok), mode)).rejects.toThrow(
        'mode is invalid (valid values are: halt|powerdown|reboot',
      );
    }
    expect(ran()).toEqual([]);
  });

  test('says what failed, in the words of each release', async () => {
    const failing = new Proxy<Tools>({}, { get: () => ({ exitCode: 1, output: 'Access denied\n' }) });
    await expect(shutdown(make(failing))).rejects.toThrow('child process has failed to shutdown: Access denied\n');
    await expect(shutdown(make(failing, '7.2'))).rejects.toThrow(/^child process has failed to shutdown$/);
    const killed = new Proxy<Tools>({}, { get: () => ({ exitCode: undefined }) });
    await expect(shutdown(make(killed))).rejects.toThrow(/^child process has terminated abnormally$/);
  });
});

describe('suspend', () => {
  const suspend = (made: MadeUpGuest, mode: 'disk' | 'ram' | 'hybrid') => {
    const handler = powerHandlers(made.sources)[`guest-suspend-${mode}`];
    return Promise.resolve(handler({}, context));
  };

  test('is systemd, where it has the unit', async () => {
    await suspend(make({ 'systemctl status systemd-suspend': { exitCode: 3 }, 'systemctl suspend': {} }), 'ram');
    expect(ran()).toEqual(['systemctl status systemd-suspend', 'systemctl suspend']);
  });

  test('is pm-utils, else the kernel', async () => {
    await suspend(make({ 'pm-is-supported --hibernate': {}, 'pm-hibernate': {} }), 'disk');
    expect(ran()).toEqual(['systemctl status systemd-hibernate', 'pm-is-supported --hibernate', 'pm-hibernate']);
    const bare = make();
    bare.write('sys/power/state', 'freeze mem disk\n');
    await suspend(bare, 'ram');
    expect(readFileSync(join(bare.root, 'sys/power/state'), 'utf8')).toMatch(/^mem/);
  });

  test('says why it cannot', async () => {
    await expect(suspend(make(), 'hybrid')).rejects.toThrow('the requested suspend mode is not supported by the guest');
    const failing = make({
      'systemctl status systemd-hibernate': { exitCode: 3 },
      'systemctl hibernate': { exitCode: 1 },
    });
    await expect(suspend(failing, 'disk')).rejects.toThrow(
      `the helper program 'systemctl hibernate' returned an unexpected exit status code (1)`,
    );
  });
});
