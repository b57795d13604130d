// The guest's side of the threat model (qga/threat-model.md): who may speak to agent and freezer, what root can be
// made to run, what can be planted, and what a host can do within the policy that the guest's administrator has set.
import { connect } from 'node:net';
import { afterEach, beforeAll, expect, test } from 'vitest';
import { waitForAgent, type Guest } from '../../src/testing/index.js';
import { addWriter, agentGuest, agentState, requester, userModeAgent } from '../support/agent-guest.js';
import { beginWrites, lastWrite } from '../support/first-write.js';
import { kernels, rarely } from '../support/variants.js';
import { requires, USER_MODE } from '../support/requires.js';
import { sharedGuest } from '../support/shared-guest.js';

const BUILD_LIMIT_MS = 500_000;
const RUN = '/run/fsfreeze-bridge';
const HOOKS = '/etc/fsfreeze-bridge/fsfreeze-hook.d';

/**
 * One request on a unix socket of the guest, and the answer's line; or why it could not connect. Who is turned away may
 * be told so, and the connection closed, before the request is sent.
 */
const ASK = `
use strict; use IO::Socket::UNIX; $SIG{PIPE} = 'IGNORE';
my ($path, $request) = @ARGV;
my $socket = IO::Socket::UNIX->new(Peer => $path) or do { print "refused: $!\\n"; exit 0 };
print $socket "$request\\n"; alarm 60; print scalar(<$socket>) // "closed\\n";
`;

async function askAs(guest: Guest, user: string, socket: string, request: object | string): Promise<string> {
  const line = typeof request === 'string' ? request : JSON.stringify(request);
  const asking = ['/usr/bin/perl', '-e', ASK, socket, line];
  const command = user === 'root' ? asking : ['/usr/sbin/runuser', '-u', user, '--', ...asking];
  return (await guest.exec(command, { timeoutMs: 90_000 })).stdout.trim();
}

/** Users: one of the group of the local socket, one of none. */
async function addUsers(guest: Guest): Promise<void> {
  await guest.exec('useradd -m mallory && useradd -m -G fsfreeze-bridge backup1');
}

const modes = async (guest: Guest, files: string): Promise<readonly string[]> =>
  (await guest.exec(`stat -L -c '%a %U:%G %F %n' ${files}`)).stdout.trim().split('\n');

/** Sends lines as they are on the host's channel and gives the answers, one for each. */
async function raw(guest: Guest, lines: readonly (string | Buffer)[]): Promise<readonly string[]> {
  const socket = connect(guest.qgaPath);
  try {
    return await new Promise((resolve, reject) => {
      let received = '';
      socket.setTimeout(60_000, () => {
        reject(new Error(`${lines.length} answers expected, found: ${received}`));
      });
      socket.on('error', reject);
      socket.on('data', (chunk) => {
        received += chunk.toString('utf8');
        const answers = received.split('\n').slice(0, -1);
        if (answers.length >= lines.length) resolve(answers);
      });
      for (const line of lines) socket.write(Buffer.concat([Buffer.from(line), Buffer.from('\n')]));
    });
  } finally {
    socket.destroy();
  }
}

async function configure(guest: Guest, text: string): Promise<void> {
  await guest.exec('mkdir -p /etc/qemu && cat >/etc/qemu/qemu-ga.conf', { input: text });
  await guest.exec(['/bin/systemctl', 'restart', 'fsfreeze-agent']);
  await waitForAgent(guest);
}

/** No hooks, no configuration, nothing that was planted; agent and freezer started anew. */
async function putBack(guest: Guest): Promise<void> {
  await guest.exec(`rm -f ${HOOKS}/20-* /etc/qemu/qemu-ga.conf ${RUN}/frozen.new
    systemctl restart fsfreeze-freezer fsfreeze-agent`);
  await waitForAgent(guest);
}

/** Who owns what, and with which mode, before and while the guest is held. */
async function expectOwners(guest: Guest): Promise<void> {
  expect(await modes(guest, `${RUN} ${RUN}/agent.sock ${RUN}/freezer.sock /dev/virtio-ports/*.0`)).toEqual([
    `755 root:root directory ${RUN}`,
    `660 root:fsfreeze-bridge socket ${RUN}/agent.sock`,
    `600 root:root socket ${RUN}/freezer.sock`,
    '600 root:root character special file /dev/virtio-ports/org.qemu.guest_agent.0',
  ]);
  await using host = await requester(guest);
  const session = await host.coordinator.freeze({ requester: 'test', leaseMs: 30_000, require: 'filesystem' });
  expect(await modes(guest, `${RUN}/frozen ${RUN}/sessions ${RUN}/sessions/*`)).toEqual([
    `600 root:root regular file ${RUN}/frozen`,
    `700 root:root directory ${RUN}/sessions`,
    `700 root:root directory ${RUN}/sessions/${session.id}`,
  ]);
  await session.thaw();
}

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'mmdebstrap',
)('threats inside a guest in QEMU', () => {
  beforeAll(agentState, BUILD_LIMIT_MS);

  test('sockets, marker, scratch and port belong to root; only the group may use the local socket', async () => {
    await using guest = await agentGuest();
    await expectOwners(guest);
  });
});

for (const kernel of kernels('6.12'))
  requires(...USER_MODE)(`threats inside a guest, kernel ${kernel}`, () => {
    const shared = sharedGuest(async () => await userModeAgent({ kernel }), addUsers);
    afterEach(async () => {
      await putBack(shared());
    });

    test('sockets, marker, scratch and port belong to root; only the group may use the local socket', async () => {
      const guest = shared();
      await expectOwners(guest);
    });

    test('another user is refused by both sockets; a member of the group is served by the agent alone', async () => {
      const guest = shared();
      const ping = { execute: 'guest-ping' };
      const denied = 'refused: Permission denied';
      expect(await askAs(guest, 'mallory', `${RUN}/agent.sock`, ping)).toBe(denied);
      expect(await askAs(guest, 'mallory', `${RUN}/freezer.sock`, 'hello')).toBe(denied);
      expect(await askAs(guest, 'backup1', `${RUN}/freezer.sock`, 'hello')).toBe(denied);
      expect(JSON.parse(await askAs(guest, 'backup1', `${RUN}/agent.sock`, ping))).toEqual({ return: {} });
      // The freezer looks at the peer's user, too, should its mode ever be loosened.
      await guest.exec(`chmod 666 ${RUN}/freezer.sock`);
      expect(await askAs(guest, 'mallory', `${RUN}/freezer.sock`, 'hello')).toBe(
        'error limit only\\040root\\040may\\040connect',
      );
      expect(await askAs(guest, 'root', `${RUN}/freezer.sock`, 'hello')).toMatch(/^ok hello /);
    });

    rarely(
      'the group cannot end what the host holds, nor the host what the group holds; the lease ends both',
      async () => {
        const guest = shared();
        await using host = await requester(guest);
        const session = await host.coordinator.freeze({
          requester: 'the host',
          leaseMs: 30_000,
          require: 'filesystem',
        });
        const thaw = await askAs(guest, 'backup1', `${RUN}/agent.sock`, { execute: 'guest-fsfreeze-thaw' });
        expect(thaw).toContain('the guest is held by the host');
        expect(await session.thaw()).toMatchObject({ outcome: 'ok' });

        const args = { session: 'local', 'lease-ms': 4000, require: 'filesystem', requester: 'backup1' };
        const held = await askAs(guest, 'backup1', `${RUN}/agent.sock`, { execute: 'bridge-freeze', arguments: args });
        expect(JSON.parse(held)).toMatchObject({ return: { report: { state: 'frozen' } } });
        await expect(host.client.call('guest-fsfreeze-thaw', {}, { timeoutMs: 10_000 })).rejects.toMatchObject({
          desc: expect.stringContaining('held by backup1') as string,
        });
        await lastWrite(guest, await beginWrites(guest, ['/srv/data']), 60_000);
      },
    );

    test('hooks that others can write to, own, or lead elsewhere are not run, are named, and lower the level', async () => {
      const guest = shared();
      const evil = (name: string): string => `#!/bin/sh\n: >/run/ran-${name}\n`;
      for (const name of ['group', 'world', 'owned', 'real']) await addWriter(guest, `20-${name}`, evil(name));
      await guest.exec(`cd ${HOOKS}
      chmod 775 20-group; chmod 757 20-world; chown mallory 20-owned
      install -o mallory -m 755 20-real /home/mallory/hook; rm 20-real
      ln -s /home/mallory/hook 20-link
      install -d -m 1777 /var/open; install -m 755 /home/mallory/hook /var/open/hook; ln -s /var/open/hook 20-open`);
      await using host = await requester(guest);
      const writers = await host.coordinator.writers();
      const problems = Object.fromEntries(writers.map(({ name, problem }) => [name, problem]));
      expect(problems).toMatchObject({
        '20-group': expect.stringContaining('writable by others') as string,
        '20-world': expect.stringContaining('writable by others') as string,
        '20-owned': expect.stringMatching(/belongs to user \d+, not to root/) as string,
        '20-link': expect.stringMatching(/belongs to user \d+, not to root/) as string,
        '20-open': expect.stringContaining('/var/open is writable by others') as string,
        '50-postgresql': undefined,
      });
      const ask = { requester: 'test', leaseMs: 20_000 };
      await expect(host.coordinator.freeze({ ...ask, require: 'application' })).rejects.toThrow(/was not run/);
      const report = await (await host.coordinator.freeze({ ...ask, require: 'filesystem' })).thaw();
      expect(report).toMatchObject({ outcome: 'incomplete', level: 'filesystem' });
      expect(report.unsafeWriters?.map(({ what }) => what).sort()).toEqual(
        ['20-group', '20-link', '20-open', '20-owned', '20-world'].map((name) => `${HOOKS}/${name}`),
      );
      expect((await guest.exec('ls /run/ran-*', { check: false })).stdout).toBe('');
    });

    test('nothing can be planted where agent and freezer write, and a place where it could is refused', async () => {
      const guest = shared();
      await guest.exec('echo untouched >/etc/precious');
      for (const name of ['frozen', 'frozen.new', 'owed', 'sessions', 'freezer.sock', 'agent.sock']) {
        const plant = `ln -sf /etc/precious ${RUN}/${name} || ln -sfn /etc/precious ${RUN}/${name}; mv ${RUN} ${RUN}.old`;
        const { exitCode, stderr } = await guest.exec(
          ['/usr/sbin/runuser', '-u', 'mallory', '--', '/bin/sh', '-c', plant],
          {
            check: false,
          },
        );
        expect(exitCode).not.toBe(0);
        expect(stderr).toContain('Permission denied');
      }
      // A runtime directory that somebody else made first, or may write to.
      await guest.exec(['/usr/sbin/runuser', '-u', 'mallory', '--', '/bin/mkdir', '/dev/shm/mallory']);
      for (const folder of ['/dev/shm', '/dev/shm/mallory']) {
        const places = ['--socket', `${folder}/freezer.sock`, '--marker', `${folder}/frozen`];
        const started = await guest.exec(['/usr/lib/fsfreeze-bridge/freezer', ...places], { check: false });
        expect(started).toMatchObject({ exitCode: 1 });
        expect(started.stderr).toContain('belongs to root');
      }
      // A link where the marker's temporary file goes, should it ever get there: not followed.
      await guest.exec(`ln -s /etc/precious ${RUN}/frozen.new`);
      await using host = await requester(guest);
      const attempt = host.coordinator.freeze({ requester: 'test', leaseMs: 20_000, require: 'filesystem' });
      await expect(attempt).rejects.toThrow(/filesystem/);
      expect((await guest.exec(['/bin/cat', '/etc/precious'])).stdout).toBe('untouched\n');
      await lastWrite(guest, await beginWrites(guest, ['/var/tmp', '/srv/data']), 30_000);
    });

    test('a blocked command stays blocked, however the host spells it', async () => {
      const guest = shared();
      const freezing = ['guest-fsfreeze-freeze', 'guest-fsfreeze-freeze-list', 'bridge-freeze'];
      await configure(guest, `[general]\nblock-rpcs=${freezing.join(',')}\n`);
      const args = { 'lease-ms': 1000, require: 'filesystem', mountpoints: ['/'] };
      const plain = freezing.map((execute) => JSON.stringify({ execute, arguments: args }));
      const spelled = [
        '{"execute":"guest\\u002dfsfreeze\\u002dfreeze"}',
        '{"execute":"\\u0067uest-fsfreeze-freeze"}',
        '{"\\u0065xecute":"guest-fsfreeze-freeze"}',
        "{'execute':'guest-fsfreeze-freeze'}",
        '{"execute":"guest_fsfreeze_freeze"}',
        '{"execute":"guest-fsfreeze_freeze"}',
        '{"execute":"GUEST-FSFREEZE-FREEZE"}',
        '{"execute":" guest-fsfreeze-freeze"}',
        '{"execute":"guest-fsfreeze-freeze\\u0000"}',
        '{"execute":"guest-fsfreeze-freeze\\n"}',
        '{"execute":"guest-ping","execute":"guest-fsfreeze-freeze"}',
        '{"execute":"guest-fsfreeze-freeze","execute":"guest-fsfreeze-freeze"}',
        '{"exec-oob":"guest-fsfreeze-freeze"}',
        '{"execute":["guest-fsfreeze-freeze"]}',
        '{"execute":{"toString":"guest-fsfreeze-freeze"}}',
        '{"execute":"constructor"}',
        '{"execute":"__proto__"}',
        '[{"execute":"guest-fsfreeze-freeze"}]',
      ];
      for (const line of [...plain, ...spelled]) {
        const [answer = ''] = await raw(guest, [line]);
        expect(JSON.parse(answer), line).toMatchObject({ error: { desc: expect.any(String) as string } });
      }
      const [status = ''] = await raw(guest, ['{"execute":"guest-fsfreeze-status"}']);
      expect(JSON.parse(status)).toEqual({ return: 'thawed' });
      // The lists bind the host; the administrator's own socket is the administrator's.
      const local = await askAs(guest, 'root', `${RUN}/agent.sock`, { execute: 'guest-fsfreeze-freeze' });
      expect(JSON.parse(local)).toEqual({ return: 2 });
      await askAs(guest, 'root', `${RUN}/agent.sock`, { execute: 'guest-fsfreeze-thaw' });
    });

    rarely('an allow list is all that the host may use', async () => {
      const guest = shared();
      await configure(guest, '[general]\nallow-rpcs=guest-ping,guest-sync,guest-sync-delimited,guest-info\n');
      for (const execute of ['guest-fsfreeze-freeze', 'bridge-freeze', 'bridge-writers', 'guest-get-osinfo']) {
        const [answer = ''] = await raw(guest, [JSON.stringify({ execute })]);
        expect(JSON.parse(answer)).toMatchObject({ error: { class: 'CommandNotFound' } });
      }
      expect(await raw(guest, ['{"execute":"guest-ping"}'])).toEqual(['{"return": {}}']);
    });

    rarely(
      'a host that freezes again and again: each lease ends by the guest, and applications go on in between',
      async () => {
        const guest = shared();
        await configure(guest, '[bridge]\nlease-max-s=2\nlease-ms=1000\n');
        await using host = await requester(guest);
        const ask = { requester: 'test', require: 'filesystem' } as const;
        await expect(host.coordinator.freeze({ ...ask, leaseMs: 600_000 })).rejects.toThrow(/expected 1 to 2000 ms/);
        // Durable writes, one after the other, each in the time of the guest.
        const counting = await guest.start(
          'n=0; while [ ! -e /run/enough ]; do n=$((n+1)); echo $n >>/srv/data/count; sync /srv/data/count; done',
        );
        const count = async () => Number((await guest.exec(['/usr/bin/tail', '-n', '1', '/srv/data/count'])).stdout);
        await expect.poll(count, { timeout: 20_000 }).toBeGreaterThan(0);
        let before = await count();
        for (let turn = 0; turn < 6; turn++) {
          // Never thawed by the host; a renewal does not get beyond lease-max either.
          const session = await host.coordinator.freeze({ ...ask, leaseMs: 1000 });
          expect((await session.renew(2000)).remainingMs).toBeLessThanOrEqual(2000);
          const again = async () => await host.client.call('bridge-status', {}, { timeoutMs: 10_000 });
          await expect.poll(async () => (await again()).status.state, { timeout: 30_000, interval: 20 }).toBe('idle');
          const { report } = await again();
          expect(report?.outcome).toBe('expired');
          expect(report?.frozenWindowMs).toBeLessThan(3000);
          const now = await count();
          expect(now).toBeGreaterThan(before);
          before = now;
        }
        await guest.exec(': >/run/enough');
        expect(await counting.wait()).toMatchObject({ exitCode: 0 });
      },
    );
  });
