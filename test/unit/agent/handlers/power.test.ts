import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { powerHandlers } from '../../../../src/agent/handlers/power.js';
import { context, madeUpGuest, type MadeUpGuest, type Tools } from '../../../support/guest-sources.js';

let guest: MadeUpGuest | undefined;
const make = (tools: Tools = {}, compat?: '7.2'): MadeUpGuest => (guest = madeUpGuest(tools, compat));
const ran = (): readonly string[] => (guest?.calls ?? []).map(({ words }) => words.join(' '));

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
