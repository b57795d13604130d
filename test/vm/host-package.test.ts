// The package of the host tool on a machine with systemd: installed, booted, used, removed. What recover does to images is
// shown elsewhere; here, that it is run, with the rights it needs, and that what it cannot decide is seen.
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test, vi } from 'vitest';
import { bootGuest, type UserModeGuest } from '../../src/testing/index.js';
import { PACKAGE_VERSION } from '../../src/version.js';
import { requires, USER_MODE } from '../support/requires.js';
import { sharedGuest } from '../support/shared-guest.js';

const DEB = fileURLToPath(new URL(`../../build/fsfreeze-bridge_${PACKAGE_VERSION}_amd64.deb`, import.meta.url));
const SERVICE = 'fsfreeze-bridge-recover.service';
const TIMER = 'fsfreeze-bridge-recover.timer';
const STATE = '/var/lib/fsfreeze-bridge';
const CONFIGURATION = '/etc/fsfreeze-bridge/vms.json';
/** Only a person can decide what becomes of it. */
const DAMAGED = `${STATE}/vm1/nightly/manifest.json`;

const line = async (guest: UserModeGuest, command: string): Promise<string> =>
  (await guest.exec(command, { check: false, timeoutMs: 60_000 })).stdout.trim();

const properties = async (guest: UserModeGuest, unit: string, ...names: readonly string[]): Promise<object> => {
  const shown = await line(guest, `systemctl show ${names.map((name) => `-p ${name}`).join(' ')} ${unit}`);
  return Object.fromEntries(shown.split('\n').map((each) => each.split(/=(.*)/s).slice(0, 2) as [string, string]));
};

/** The image's dpkg leaves out documents. */
async function install(guest: UserModeGuest): Promise<void> {
  await guest.copyIn([DEB], '/var/tmp/deb');
  const all = "--path-include='/usr/share/man/*' --path-include='/usr/share/doc/*'";
  await guest.exec(`dpkg ${all} -i /var/tmp/deb/*.deb 2>&1`, { timeoutMs: 180_000 });
}

const bootId = async (guest: UserModeGuest): Promise<string> =>
  (await guest.exec(['/bin/cat', '/proc/sys/kernel/random/boot_id'], { timeoutMs: 5000 })).stdout;

async function reboot(guest: UserModeGuest): Promise<void> {
  const before = await bootId(guest);
  await guest.start('systemctl reboot --no-block');
  // Nobody answers meanwhile.
  const isAnew = async (): Promise<boolean> => (await bootId(guest).catch(() => before)) !== before;
  await vi.waitUntil(isAnew, { timeout: 120_000, interval: 500 });
  await guest.waitForSystem();
}

/** With a set that was damaged before it was booted the second time. */
async function setUp(guest: UserModeGuest): Promise<void> {
  await guest.waitForSystem();
  await install(guest);
  // Nothing was recovered by the installation; the timer is what will do it.
  expect(await properties(guest, SERVICE, 'UnitFileState', 'ExecMainStartTimestamp')).toEqual({
    UnitFileState: 'enabled',
    ExecMainStartTimestamp: '',
  });
  expect(await properties(guest, TIMER, 'UnitFileState', 'ActiveState')).toEqual({
    UnitFileState: 'enabled',
    ActiveState: 'active',
  });
  await guest.exec(`mkdir -p ${path.dirname(DAMAGED)} && echo '{' >${DAMAGED}`);
  await reboot(guest);
}

requires(...USER_MODE)('the package of the host tool, installed', () => {
  const guest = sharedGuest(async () => await bootGuest({ kind: 'user-mode' }), setUp);

  test('has recovered at boot; what only a person can decide fails nothing, and is a warning in the journal', async () => {
    expect(await properties(guest(), SERVICE, 'Result', 'ExecMainCode', 'ExecMainStatus', 'ActiveState')).toEqual({
      Result: 'success',
      ExecMainCode: '1',
      ExecMainStatus: '8',
      ActiveState: 'inactive',
    });
    const status = await line(guest(), `systemctl status --no-pager --full ${SERVICE}`);
    expect(status).toContain(`${path.dirname(DAMAGED)}: nothing in it says which VM it is of`);
    expect(status).toContain('something is left for you');
    const warnings = await line(guest(), `journalctl --no-pager -o cat -p warning -u ${SERVICE}`);
    expect(warnings.split('\n')).toEqual([expect.stringContaining('fsfreeze-bridge recover --dry-run')]);
    expect(await line(guest(), 'systemctl --failed --plain --no-legend')).toBe('');
  });

  test('is complete: tool, manual page, documents, units that systemd understands', async () => {
    expect(await line(guest(), 'fsfreeze-bridge --version')).toBe(PACKAGE_VERSION);
    expect(await line(guest(), 'dpkg --verify fsfreeze-bridge')).toBe('');
    expect(await line(guest(), 'zcat /usr/share/man/man8/fsfreeze-bridge.8.gz')).toMatch(/^\.TH FSFREEZE-BRIDGE 8/);
    expect(await line(guest(), `stat -c '%a %U' ${STATE}`)).toBe('750 root');
    // man is not installed there.
    const complaints = await line(guest(), `systemd-analyze verify ${SERVICE} ${TIMER} 2>&1`);
    expect(complaints.split('\n').filter((each) => each !== '' && !each.includes('man '))).toEqual([]);
    const next = await line(guest(), `systemctl list-timers --no-legend ${TIMER}`);
    expect(next).toContain(SERVICE);
  });

  test('fails when something is wrong, until a run goes well', async () => {
    await guest().exec(`echo '{ "vms": 1 }' >${CONFIGURATION}`);
    await guest().exec(`systemctl start ${SERVICE}`, { check: false });
    expect(await properties(guest(), SERVICE, 'Result', 'ExecMainStatus', 'ActiveState')).toEqual({
      Result: 'exit-code',
      ExecMainStatus: '2',
      ActiveState: 'failed',
    });
    expect(await line(guest(), `journalctl --no-pager -o cat -u ${SERVICE}`)).toContain(CONFIGURATION);
    await guest().exec(`rm ${CONFIGURATION} && systemctl start ${SERVICE}`);
    expect(await properties(guest(), SERVICE, 'ActiveState')).toEqual({ ActiveState: 'inactive' });
  });

  test('the service reaches images, sockets and devices wherever they are, and no more of the system', async () => {
    const tries = [
      ...['/home/image', '/tmp/image', '/srv/data/image', '/run/image', `${STATE}/probe`].map((file) => `: >${file}`),
      'chown nobody /home/image',
      'head -c 512 /dev/ubdb',
      'readlink /proc/1/fd/0',
      ': >/usr/bin/probe',
      ': >/etc/probe',
      'echo 1 >/proc/sys/vm/drop_caches',
      'unshare -m true',
    ];
    const script = tries.map((each, index) => `(${each}) >/dev/null 2>&1 && echo ${index} >>/run/tried`).join('\n');
    const runs = '[Service]\\nExecStart=\\nExecStart=/bin/sh /run/probe.sh\\n';
    await guest().exec(
      `cat >/run/probe.sh; d=/run/systemd/system/${SERVICE}.d; mkdir -p $d; printf '${runs}' >$d/probe.conf
      systemctl daemon-reload; systemctl start ${SERVICE}; rm -r $d; systemctl daemon-reload`,
      { input: `${script}\ntrue\n` },
    );
    const done = (await line(guest(), 'cat /run/tried')).split('\n').map((index) => tries[Number(index)]);
    expect(done).toEqual(tries.slice(0, 8));
    await guest().exec(`rm /home/image /tmp/image /srv/data/image /run/image ${STATE}/probe`);
  });

  // The last one: it takes the package away.
  test('stays switched off over an upgrade, and leaves every manifest when it is removed and purged', async () => {
    await guest().exec(`systemctl disable --now ${TIMER} 2>&1`);
    // What dpkg runs in the end; unpacking it once more takes longer than all the rest here.
    await guest().exec(`/var/lib/dpkg/info/fsfreeze-bridge.postinst configure ${PACKAGE_VERSION} 2>&1`);
    expect(await properties(guest(), TIMER, 'UnitFileState', 'ActiveState')).toEqual({
      UnitFileState: 'disabled',
      ActiveState: 'inactive',
    });
    await guest().exec(`systemctl enable --now ${TIMER} 2>&1; mkdir -p ${STATE}/vm2/empty`);
    await guest().exec('dpkg -r fsfreeze-bridge 2>&1', { timeoutMs: 60_000 });
    expect(await properties(guest(), TIMER, 'LoadState', 'ActiveState')).toEqual({
      LoadState: 'not-found',
      ActiveState: 'inactive',
    });
    await guest().exec('dpkg --purge fsfreeze-bridge 2>&1', { timeoutMs: 60_000 });
    expect(await line(guest(), `find ${STATE} | sort`)).toBe(
      [STATE, `${STATE}/vm1`, `${STATE}/vm1/nightly`, DAMAGED].join('\n'),
    );
    expect(await line(guest(), 'find /etc/systemd/system /usr/bin /usr/lib/systemd -name "fsfreeze-bridge*"')).toBe('');
  });
});
