// qemu-ga's other commands in a real guest, ours and the stock agent side by side: what they tell must agree, and what
// ours changes is looked at with the guest's own eyes. Shutdown comes last.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { QgaClient } from '../../src/qga/client.js';
import type { ArgsInput, CommandName, Returns } from '../../src/qga/commands.js';
import type { QemuGuest } from '../../src/testing/index.js';
import { agentGuest, agentState } from '../support/agent-guest.js';
import { requires } from '../support/requires.js';

const BUILD_LIMIT_MS = 500_000;
const CONF = '/etc/qemu/qemu-ga.conf';

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'mmdebstrap',
)('the commands of qemu-ga in a guest', () => {
  let guest: QemuGuest;
  let client: QgaClient;

  const configure = async (lines: string): Promise<void> => {
    await client.close();
    await guest.exec(
      `mkdir -p /etc/qemu && printf '[bridge]\\n${lines}\\n' >${CONF} && systemctl restart fsfreeze-agent`,
    );
    client = await QgaClient.connect(guest.qgaPath, { timeoutMs: 20_000 });
  };
  const call = async <N extends CommandName>(name: N, args: ArgsInput<N>): Promise<Returns<N>> =>
    await client.call(name, args, { timeoutMs: 60_000 });
  const stock = async (name: string): Promise<unknown> => await guest.stockAgent.execute(name);
  const text = async (path: string): Promise<string> => (await guest.exec(['/bin/cat', path])).stdout;
  const b64 = (plain: string): string => Buffer.from(plain).toString('base64');
  const run = async (path: string, arg: string[], more: Partial<ArgsInput<'guest-exec'>> = {}) => {
    const { pid } = await call('guest-exec', { path, arg, 'capture-output': 'merged', ...more });
    for (;;) {
      const status = await call('guest-exec-status', { pid });
      if (status.exited) return { ...status, output: Buffer.from(status['out-data'] ?? '', 'base64').toString() };
      await sleep(100);
    }
  };

  beforeAll(async () => {
    await agentState();
    guest = await agentGuest();
    client = await QgaClient.connect(guest.qgaPath, { timeoutMs: 20_000 });
  }, BUILD_LIMIT_MS);
  afterAll(async () => {
    await client.close();
    await guest[Symbol.asyncDispose]();
  });

  test('as shipped nothing can be run, written or taken over', async () => {
    for (const [name, args] of [
      ['guest-exec', { path: '/bin/true' }],
      ['guest-file-write', { handle: 1000, 'buf-b64': '' }],
      ['guest-set-user-password', { username: 'root', password: b64('x'), crypted: false }],
      ['guest-ssh-add-authorized-keys', { username: 'root', keys: ['algo x'] }],
    ] as const) {
      await expect(call(name, args as never)).rejects.toMatchObject({
        class: 'CommandNotFound',
        desc: `Command ${name} has been disabled: the command is not allowed`,
      });
    }
    await expect(call('guest-file-open', { path: '/root/x', mode: 'w' })).rejects.toMatchObject({
      desc: expect.stringContaining('the policy allows reading only') as string,
    });
    const handle = await call('guest-file-open', { path: '/etc/hostname' });
    expect(await call('guest-file-read', { handle })).toMatchObject({ 'buf-b64': b64('guest\n'), eof: true });
    await call('guest-file-close', { handle });
  });

  test('freeze-only leaves what a backup needs', async () => {
    await configure('policy=freeze-only');
    await expect(call('guest-shutdown', {})).rejects.toMatchObject({ class: 'CommandNotFound' });
    await expect(call('guest-file-open', { path: '/etc/hostname' })).rejects.toMatchObject({
      class: 'CommandNotFound',
    });
    expect(await call('guest-fsfreeze-freeze', {})).toBe(2);
    expect(await call('guest-fsfreeze-thaw', {})).toBe(2);
    expect(await call('guest-get-fsinfo', {})).toHaveLength(2);
  });

  test('policy=full gives everything, and guest-info says so', async () => {
    await configure('policy=full');
    const { supported_commands: found } = await call('guest-info', {});
    expect(found.filter(({ enabled }) => !enabled)).toEqual([]);
    const { supported_commands: theirs } = (await stock('guest-info')) as typeof Object & {
      supported_commands: { name: string }[];
    };
    const names = found.map(({ name }) => name);
    expect(theirs.map(({ name }) => name).filter((name) => !names.includes(name as never))).toEqual([
      'guest-get-devices',
    ]);
  });

  test.each([
    'guest-get-vcpus',
    'guest-get-memory-blocks',
    'guest-get-memory-block-info',
    'guest-get-timezone',
  ] as const)('%s tells what the stock agent tells', async (name) => {
    expect(sorted(await call(name, {}))).toEqual(sorted(await stock(name)));
  });

  test('disks and filesystems are those of the stock agent, with udev’s serials', async () => {
    expect(sorted(await call('guest-get-disks', {}))).toEqual(sorted(await stock('guest-get-disks')));
    const apart = ['used-bytes', 'total-bytes-privileged'];
    expect(sorted(await call('guest-get-fsinfo', {}), apart)).toEqual(sorted(await stock('guest-get-fsinfo'), apart));
  });

  test('a volume on a partition is named with both', async () => {
    await guest.addBlankDisk('extra', 256);
    // A partition table by hand: the guest has no tool for one. One partition of type LVM, from sector 2048.
    await guest.exec(
      String.raw`d=$(readlink -f /dev/disk/by-id/virtio-extra) &&
        printf '\0\376\377\377\216\376\377\377\0\010\0\0\0\0\006\0' | dd of=$d bs=1 seek=446 conv=notrunc status=none &&
        printf '\125\252' | dd of=$d bs=1 seek=510 conv=notrunc,fsync status=none &&
        { partx -a $d 2>/dev/null || partx -u $d; } && udevadm settle &&
        vgcreate -qq vgx $d"1" && lvcreate -qq -y -Zn -Wn -L 64M -n lvx vgx && udevadm settle &&
        mkfs.ext4 -q /dev/vgx/lvx && mkdir -p /mnt/x && mount /dev/vgx/lvx /mnt/x`,
      { timeoutMs: 120_000 },
    );
    const apart = ['used-bytes', 'total-bytes-privileged'];
    expect(sorted(await call('guest-get-disks', {}))).toEqual(sorted(await stock('guest-get-disks')));
    expect(sorted(await call('guest-get-fsinfo', {}), apart)).toEqual(sorted(await stock('guest-get-fsinfo'), apart));
    const disks = await call('guest-get-disks', {});
    expect(disks.find(({ alias }) => alias === 'vgx-lvx')?.dependencies).toEqual([
      expect.stringMatching(/^\/dev\/vd.1$/) as string,
    ]);
  });

  test('interfaces are those of the stock agent, but for what moves', async () => {
    const apart = Object.keys((await call('guest-network-get-interfaces', {}))[0]?.statistics ?? {});
    expect(apart).toContain('rx-bytes');
    expect(sorted(await call('guest-network-get-interfaces', {}), apart)).toEqual(
      sorted(await stock('guest-network-get-interfaces'), apart),
    );
    await guest.exec(
      'ip link add dummy0 type dummy && ip addr add 10.9.9.1/30 dev dummy0 label dummy0:1 && ip link set dummy0 up',
    );
    expect(sorted(await call('guest-network-get-interfaces', {}), apart)).toEqual(
      sorted(await stock('guest-network-get-interfaces'), apart),
    );
    const routes = await call('guest-network-get-route', {});
    expect(routes).toContainEqual(
      expect.objectContaining({ iface: 'dummy0', destination: '10.9.9.0', mask: '255.255.255.252', version: 4 }),
    );
    expect(routes.some(({ version, destination }) => version === 6 && destination === '::1')).toBe(true);
  });

  test('statistics have the stock agent’s members', async () => {
    for (const name of ['guest-get-diskstats', 'guest-get-cpustats'] as const) {
      expect(shape(await call(name, {}))).toEqual(shape(await stock(name)));
    }
    expect(Object.values(await call('guest-get-load', {})).every((load) => load >= 0 && load < 1000)).toBe(true);
  });

  test('a processor goes off and on', async () => {
    expect(await call('guest-set-vcpus', { vcpus: [{ 'logical-id': 1, online: false }] })).toBe(1);
    expect((await text('/sys/devices/system/cpu/online')).trim()).toBe('0');
    expect(await call('guest-get-vcpus', {})).toContainEqual({ 'logical-id': 1, online: false, 'can-offline': true });
    expect(await call('guest-set-vcpus', { vcpus: [{ 'logical-id': 1, online: true }] })).toBe(1);
    expect((await text('/sys/devices/system/cpu/online')).trim()).toBe('0-1');
    await expect(call('guest-set-vcpus', { vcpus: [{ 'logical-id': 9, online: true }] })).rejects.toMatchObject({
      desc: 'open("/sys/devices/system/cpu/cpu9/"): No such file or directory',
    });
  });

  test('memory blocks answer each for itself', async () => {
    const blocks = await call('guest-get-memory-blocks', {});
    expect(blocks.length).toBeGreaterThan(0);
    const first = blocks[0]?.['phys-index'] ?? 0;
    expect(
      await call('guest-set-memory-blocks', {
        'mem-blks': [
          { 'phys-index': first, online: true },
          { 'phys-index': 987_654, online: false },
        ],
      }),
    ).toEqual([
      { 'phys-index': first, response: 'success' },
      { 'phys-index': 987_654, response: 'not-found', 'error-code': 2 },
    ]);
  });

  test('files are written for everybody to see', async () => {
    const handle = await call('guest-file-open', { path: '/root/written', mode: 'w+' });
    expect(await call('guest-file-write', { handle, 'buf-b64': b64('hello\n') })).toEqual({ count: 6, eof: false });
    expect(await text('/root/written')).toBe('hello\n');
    expect(await call('guest-file-seek', { handle, offset: -3, whence: 'end' })).toEqual({ position: 3, eof: false });
    expect(await call('guest-file-read', { handle })).toEqual({ count: 3, 'buf-b64': b64('lo\n'), eof: true });
    await call('guest-file-close', { handle });
  });

  test('programs run with their output, and a freeze does not wait for them', async () => {
    expect(await run('/bin/sh', ['-c', 'id -u; echo err >&2; echo again >/dev/stdout'])).toMatchObject({
      exitcode: 0,
      output: '0\nerr\nagain\n',
    });
    expect(await run('cat', [], { 'input-data': b64('in') })).toMatchObject({ output: 'in' });
    const { pid } = await call('guest-exec', { path: 'sleep', arg: ['300'], 'capture-output': true });
    const count = (await call('guest-get-fsinfo', {})).length;
    try {
      expect(await call('guest-fsfreeze-freeze', {})).toBe(count);
      await expect(call('guest-exec', { path: '/bin/true' })).rejects.toMatchObject({ class: 'CommandNotFound' });
    } finally {
      expect(await call('guest-fsfreeze-thaw', {})).toBe(count);
    }
    expect(await call('guest-exec-status', { pid })).toEqual({ exited: false });
    await guest.exec(['/bin/kill', String(pid)]);
    await expect.poll(() => call('guest-exec-status', { pid })).toEqual({ exited: true, signal: 15 });
  });

  test('filesystems are trimmed', async () => {
    const { paths } = await call('guest-fstrim', {});
    const mounted = (await call('guest-get-fsinfo', {})).map(({ mountpoint }) => mountpoint);
    expect(paths.map(({ path }) => path)).toEqual(mounted);
    for (const { trimmed, error } of paths) {
      if (error === undefined) expect(Number(trimmed)).toBeGreaterThanOrEqual(0);
      else expect(error).toBe('trim not supported');
    }
    const theirs = (await stock('guest-fstrim')) as typeof Object & { paths: { path: string; error?: string }[] };
    expect(paths.map(({ path, error }) => ({ path, error }))).toEqual(
      theirs.paths.map(({ path, error }) => ({ path, error })),
    );
  });

  test('the clock is set to the nanosecond asked, but for the fraction of a microsecond', async () => {
    const wanted = 1_893_456_000_123_456_789n;
    // Without a hardware clock's device or hwclock(8) the second half fails, after the first was done.
    await call('guest-set-time', { time: wanted }).catch((error: unknown) => {
      expect(error).toMatchObject({ desc: expect.stringContaining('hardware clock') as string });
    });
    const now = BigInt(await call('guest-get-time', {}));
    expect(now).toBeGreaterThanOrEqual(wanted - 1000n);
    expect(now).toBeLessThan(wanted + 60_000_000_000n);
    await expect(call('guest-set-time', { time: -1 })).rejects.toMatchObject({ desc: 'Invalid time' });
    await guest.setClock();
  });

  test('a password and SSH keys', async () => {
    await guest.exec('useradd -m ann');
    await call('guest-set-user-password', { username: 'ann', password: b64('pa:ss "word"'), crypted: false });
    expect(await text('/etc/shadow')).toMatch(/^ann:\$/m);
    await call('guest-set-user-password', { username: 'ann', password: b64('$6$x$hash'), crypted: true });
    expect(await text('/etc/shadow')).toMatch(/^ann:\$6\$x\$hash:/m);
    await expect(
      call('guest-set-user-password', { username: 'nosuch', password: b64('x'), crypted: false }),
    ).rejects.toMatchObject({
      desc: expect.stringMatching(/^child process has failed to set user password: .*nosuch/) as string,
    });
    await call('guest-ssh-add-authorized-keys', { username: 'ann', keys: ['algo one', 'algo two'] });
    await call('guest-ssh-remove-authorized-keys', { username: 'ann', keys: ['algo one'] });
    expect(await call('guest-ssh-get-authorized-keys', { username: 'ann' })).toEqual({ keys: ['algo two'] });
    expect((await guest.exec('stat -c "%U %a %n" /home/ann/.ssh /home/ann/.ssh/authorized_keys')).stdout).toBe(
      'ann 700 /home/ann/.ssh\nann 600 /home/ann/.ssh/authorized_keys\n',
    );
    expect(await stockKeys(guest)).toEqual({ keys: ['algo two'] });
  });

  test('suspending is refused where the guest cannot, in words', async () => {
    await guest.exec('ln -sf /dev/null /etc/systemd/system/systemd-hybrid-sleep.service && systemctl daemon-reload');
    const answer = call('guest-suspend-hybrid', {});
    await expect(answer).rejects.toMatchObject({ class: 'GenericError' });
  });

  test('shutdown is refused in an unknown mode, and else carried out in silence', async () => {
    await expect(call('guest-shutdown', { mode: 'sideways' })).rejects.toMatchObject({
      desc: 'mode is invalid (valid values are: halt|powerdown|reboot',
    });
    using shutdowns = guest.monitor.listen('SHUTDOWN');
    const silent = client.call('guest-shutdown', {}, { timeoutMs: 90_000 }).catch((error: unknown) => error);
    await shutdowns.next(90_000);
    await silent;
  });
});

async function stockKeys(guest: QemuGuest): Promise<unknown> {
  return await guest.stockAgent.execute('guest-ssh-get-authorized-keys', { username: 'ann' });
}

/** Lists in an order of their own, members in none; those named left out, and what is absent. */
function sorted(value: unknown, apart: readonly string[] = []): unknown {
  if (Array.isArray(value)) {
    const items = value.map((item) => sorted(item, apart));
    return items.sort((a, b) => JSON.stringify(a).localeCompare(JSON.stringify(b)));
  }
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([name, member]) => !apart.includes(name) && member !== undefined)
      .sort(([a], [b]) => a.localeCompare(b))
      .map(([name, member]) => [name, sorted(member, apart)]),
  );
}

/** The same with every number as 0. */
function shape(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(shape);
  if (typeof value === 'number' || typeof value === 'bigint') return 0;
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => a.localeCompare(b))
      .map(([name, member]) => [name, shape(member)]),
  );
}
