// The agent on a vsock: systemd opens it (fsfreeze-agent-vsock.socket), the agent takes it over, and clients come through
// the kernel's own loopback (vsock_loopback, CID 1), which moves the bytes with the code of the virtio transport. What
// is not met here is a host on the other side: that takes vhost-vsock in the machine that runs QEMU.
import { beforeAll, beforeEach, expect, test } from 'vitest';
import { fileURLToPath } from 'node:url';
import { guestPid, type Guest } from '../../src/testing/index.js';
import { agentGuest, agentState, bridge, requester, userModeAgent } from '../support/agent-guest.js';
import { beginWrites, lastWrite, writesDone } from '../support/first-write.js';
import { sharedGuest } from '../support/shared-guest.js';
import { kernels, rarely } from '../support/variants.js';
import { requires, USER_MODE } from '../support/requires.js';

const BUILD_LIMIT_MS = 500_000;
const UNIT = 'fsfreeze-agent-vsock';
const PORT_AGENT = 'fsfreeze-agent.service';
const PING = '{"execute": "guest-ping"}';
/** Of the guest, at rest. A busy loop would use all of them. */
const REST = { seconds: 8, cpuSeconds: 0.08 } as const;

// Perl has no name for the family, nor for struct sockaddr_vm: family, reserved, port, CID, flags.
const PRELUDE = `
use strict; use Socket; use IO::Handle; use Fcntl; use Time::HiRes qw(sleep time);
$| = 1; $SIG{PIPE} = 'IGNORE';
my $ping = '${PING}';
sub vsock {
  socket(my $s, 40, SOCK_STREAM, 0) or die "socket: $!";
  connect($s, pack('SSLLCx3', 40, 0, 1024, 1, 0)) or die "connect: $!";
  $s->autoflush(1);
  return $s;
}
sub readable { my ($s, $seconds) = @_; my $set = ''; vec($set, fileno($s), 1) = 1; return select($set, undef, undef, $seconds) }
sub line {
  my ($s, $seconds) = @_;
  local $SIG{ALRM} = sub { die "no line within $seconds s\\n" };
  alarm($seconds // 30); my $line = <$s>; alarm 0;
  return 'closed' unless defined $line;
  chomp $line; return $line;
}
# What the agent takes, and no byte of the answers.
sub deaf {
  my $s = vsock();
  fcntl($s, F_SETFL, O_NONBLOCK);
  my $text = '{"execute": "guest-ping", "id": "' . 'x' x (1024 * 1024) . '"}';
  my ($sent, $last) = (0, time);
  while (time - $last < 2 and $sent < 64 * 1024 * 1024) {
    my $n = syswrite($s, $text, length($text) - $sent % length $text, $sent % length $text);
    if (defined $n) { $sent += $n; $last = time } elsif ($!{EAGAIN}) { sleep 0.05 } else { die "deaf: $!" }
  }
  return $s;
}
`;

// The host's end of a vsock that is not there: what comes on the virtio port goes to the vsock and back, one connection
// for each host.
const RELAY = `${PRELUDE}
sysopen(my $port, '/dev/virtio-ports/org.qemu.guest_agent.0', O_RDWR | O_NONBLOCK) or die "port: $!";
my $vsock;
for (;;) {
  my $n = sysread($port, my $bytes, 65536);
  if ($n) { $vsock //= vsock(); print $vsock $bytes or die "vsock: $!" }
  elsif (defined $n) { undef $vsock; sleep 0.02 }
  next if $n;
  my $set = ''; vec($set, fileno($port), 1) = 1; vec($set, fileno($vsock), 1) = 1 if $vsock;
  select($set, undef, undef, 0.5);
  next unless $vsock and readable($vsock, 0);
  sysread($vsock, $bytes, 65536) or do { undef $vsock; next };
  while (length $bytes) {
    my $written = syswrite($port, $bytes);
    if (defined $written) { substr($bytes, 0, $written) = '' } elsif ($!{EAGAIN}) { sleep 0.01 } else { die "port: $!" }
  }
}
`;

const perl = (script: string): readonly string[] => ['/usr/bin/perl', '-e', script];

/** Runs a client and gives the lines it prints. */
async function client(guest: Guest, script: string, timeoutMs = 120_000): Promise<readonly string[]> {
  const { stdout } = await guest.exec(perl(PRELUDE + script), { timeoutMs });
  return stdout.trim().split('\n');
}

const LISTEN = `modprobe vsock_loopback && systemctl start ${UNIT}.socket`;

async function state(guest: Guest, unit: string): Promise<string> {
  return (await guest.exec(`systemctl is-active ${unit}`, { check: false })).stdout.trim();
}

/** Seconds of CPU time that a process uses in `REST.seconds` of the guest. */
async function cpuAtRest(guest: Guest, pid: number): Promise<number> {
  const ticks = `set -- $(cut -d')' -f2 /proc/${pid}/stat); echo $(($12 + $13))`;
  const { stdout } = await guest.exec(`${ticks}; sleep ${REST.seconds}; ${ticks}`);
  const [before = 0, after = 100] = stdout.trim().split('\n').map(Number);
  return (after - before) / 100;
}

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'mmdebstrap',
)('the agent on a vsock, in QEMU', () => {
  beforeAll(agentState, BUILD_LIMIT_MS);

  test('freezes and thaws, and proves it; a lease that ends thaws; the host tool cuts', async () => {
    await using guest = await agentGuest();
    await guest.exec(LISTEN);
    await client(guest, `my $s = vsock(); print $s "$ping\\n"; line($s, 60);`);
    // The port is free now: it stands for the host's vsock.
    await guest.start(perl(RELAY));
    {
      await using host = await requester(guest);
      expect(await host.client.call('guest-fsfreeze-freeze', {}, { timeoutMs: 60_000 })).toBe(2);
      expect(await host.client.call('guest-fsfreeze-status', {}, { timeoutMs: 5000 })).toBe('frozen');
      const writes = await beginWrites(guest, ['/var/tmp', '/srv/data']);
      await host.client.call('guest-ping', {}, { timeoutMs: 5000 });
      expect(await writesDone(guest, writes)).toEqual([]);
      expect(await host.client.call('guest-fsfreeze-thaw', {}, { timeoutMs: 30_000 })).toBe(2);
      await lastWrite(guest, writes, 20_000);

      const held = await host.coordinator.freeze({ requester: 'test', leaseMs: 20_000, require: 'application' });
      expect(await held.thaw()).toMatchObject({ outcome: 'ok', level: 'application' });
      const left = await host.coordinator.freeze({ requester: 'test', leaseMs: 2000, require: 'application' });
      await lastWrite(guest, await beginWrites(guest, ['/var/tmp', '/srv/data']), 20_000);
      expect(await left.thaw()).toMatchObject({ outcome: 'expired', level: 'crash' });
    }
    const cut = await bridge(guest, ['snapshot', 'create', '--name', 'through-vsock']);
    expect(cut, cut.stderr).toMatchObject({ exitCode: 0, json: { level: 'application' } });
    expect(await state(guest, PORT_AGENT)).toBe('inactive');
  });
});

for (const kernel of kernels('6.12'))
  requires(...USER_MODE)(`the agent on a vsock, kernel ${kernel}`, () => {
    const start = async () => await userModeAgent({ kernel });
    const shared = sharedGuest(start);
    beforeEach(async () => {
      await shared()
        .exec(`pkill -KILL -x perl; systemctl stop ${UNIT}.socket ${UNIT}.service; rm -f /run/there /run/deaf-*
        systemctl start ${PORT_AGENT} && ${LISTEN}`);
    });

    test('is started by its first client, in the place of the agent on the port, and serves one after another', async () => {
      const guest = shared();
      expect(await state(guest, `${UNIT}.service`)).toBe('inactive');
      expect(await state(guest, PORT_AGENT)).toBe('active');
      const answers = await client(
        guest,
        `my $s = vsock(); print $s '{"execute": "guest-sync-delimited", "arguments": {"id": 7}}'; print line($s, 60), "\\n";
       print $s "$ping$ping\\n"; print line($s), "\\n", line($s), "\\n";
       my $id = 'x' x (1024 * 1024); print $s qq({"execute": "guest-ping", "id": "$id"}\\n);
       print line($s) eq qq({"return": {}, "id": "$id"}) ? "whole\\n" : "not whole\\n";
       # What was asked before the end of its side is answered after it.
       print $s "$ping\\n"; shutdown($s, 1); print line($s), "\\n", line($s), "\\n";`,
      );
      expect(answers).toEqual([
        expect.stringMatching(/{"return": 7}$/),
        '{"return": {}}',
        '{"return": {}}',
        'whole',
        '{"return": {}}',
        'closed',
      ]);
      expect(await state(guest, `${UNIT}.service`)).toBe('active');
      expect(await state(guest, PORT_AGENT)).toBe('inactive');
      const [served] = await client(
        guest,
        `my $served = 0;
       for (1 .. 100) {
         # One in ten leaves half a request, and leaves it by being killed.
         if ($_ % 10 == 0) {
           pipe(my $told, my $tell); my $pid = fork;
           if (!$pid) { my $s = vsock(); print $s '{"execute": "guest-pi'; syswrite($tell, 'x'); sleep 60 }
           sysread($told, my $byte, 1); kill 'KILL', $pid; waitpid $pid, 0;
         }
         my $s = vsock(); print $s "$ping\\n"; $served++ if line($s) eq '{"return": {}}';
       }
       print "$served\\n";`,
      );
      expect(served).toBe('100');
      // Every one of them is closed on our side, too: descriptors do not add up.
      const pid = await guestPid(guest, { unit: `${UNIT}.service` });
      const descriptors = Number((await guest.exec(`ls /proc/${pid}/fd | wc -l`)).stdout);
      expect(descriptors).toBeLessThan(40);
    });

    // The unit's socket brings the loopback module with it.
    test('is open to every user of the guest, and so gives what a backup needs and no more, unless told', async () => {
      await using guest = await start();
      await guest.exec(`systemctl start ${UNIT}.socket`);
      const askAsNobody = async () => {
        const script = `my $s = vsock();
        for (qw(guest-file-open guest-ping)) {
          my $args = /open/ ? '{"path": "/etc/shadow"}' : '{}';
          print $s qq({"execute": "$_", "arguments": $args}\\n); print line($s, 60), "\\n";
        }`;
        const asking = ['/usr/sbin/runuser', '-u', 'nobody', '--', ...perl(PRELUDE + script)];
        return (await guest.exec(asking, { timeoutMs: 120_000 })).stdout.trim().split('\n');
      };
      const [refused = '', ping] = await askAsNobody();
      expect(JSON.parse(refused)).toMatchObject({ error: { class: 'CommandNotFound' } });
      expect(ping).toBe('{"return": {}}');
      await guest.exec(
        `mkdir -p /etc/qemu; printf '[bridge]\\npolicy=default\\n' >/etc/qemu/qemu-ga.conf; systemctl restart ${UNIT}.service`,
      );
      expect(await askAsNobody()).toEqual(['{"return": 1000}', '{"return": {}}']);
    });

    rarely(
      'lets a second client wait its turn, and uses no processor while clients rest, wait, or have gone',
      async () => {
        const guest = shared();
        const [first, quiet, after] = await client(
          guest,
          `my $s = vsock(); print $s "$ping\\n"; print line($s, 60), "\\n";
       my $next = vsock(); print $next "$ping\\n"; print readable($next, 2) ? "not its turn\\n" : "quiet\\n";
       close $s; print line($next), "\\n";`,
        );
        expect([first, quiet, after]).toEqual(['{"return": {}}', 'quiet', '{"return": {}}']);
        const pid = await guestPid(guest, { unit: `${UNIT}.service` });
        expect(await cpuAtRest(guest, pid), 'nobody is there').toBeLessThanOrEqual(REST.cpuSeconds);
        // One is served and says nothing, one waits, and one that waited has gone.
        await guest.start(
          perl(
            `${PRELUDE} my $s = vsock(); print $s "$ping\\n"; line($s); my $waits = vsock(); my $gone = vsock(); close $gone;
         open(my $done, '>', '/run/there'); close $done; sleep 120;`,
          ),
        );
        await guest.exec('until [ -e /run/there ]; do sleep 0.1; done');
        expect(await cpuAtRest(guest, pid), 'clients are there').toBeLessThanOrEqual(REST.cpuSeconds);
      },
    );

    test('an agent that dies takes nobody along but its client: who comes then is served by the next one', async () => {
      const guest = shared();
      await client(guest, `my $s = vsock(); print $s "$ping\\n"; line($s, 60);`);
      const pid = await guestPid(guest, { unit: `${UNIT}.service` });
      const [lost, answer] = await client(
        guest,
        `my $s = vsock(); print $s "$ping\\n"; line($s); kill 'KILL', ${pid};
       my $next = vsock(); print $next "$ping\\n"; print line($s), "\\n", line($next, 60), "\\n";`,
      );
      expect([lost, answer]).toEqual(['closed', '{"return": {}}']);
      expect(await guestPid(guest, { unit: `${UNIT}.service` })).not.toBe(pid);
    });

    rarely(
      'cuts off a client that stops reading, without a busy loop; SIGTERM ends it with such a one there',
      async () => {
        const guest = shared();
        await client(guest, `my $s = vsock(); print $s "$ping\\n"; line($s, 60);`);
        const pid = await guestPid(guest, { unit: `${UNIT}.service` });
        const holdDeaf = async (file: string) => {
          await guest.start(
            perl(`${PRELUDE} my $s = deaf(); open(my $done, '>', '${file}'); close $done; sleep 200; print "$s";`),
          );
          await guest.exec(`until [ -e ${file} ]; do sleep 0.1; done`, { timeoutMs: 60_000 });
        };
        await holdDeaf('/run/deaf-1');
        expect(await cpuAtRest(guest, pid), 'a client does not read').toBeLessThanOrEqual(REST.cpuSeconds);
        // Its turn comes when the deaf one's 30 s are over.
        expect(await client(guest, `my $s = vsock(); print $s "$ping\\n"; print line($s, 60), "\\n";`)).toEqual([
          '{"return": {}}',
        ]);
        await holdDeaf('/run/deaf-2');
        const { stdout } = await guest.exec(
          `a=$(cut -d. -f1 /proc/uptime); systemctl stop ${UNIT}.service; b=$(cut -d. -f1 /proc/uptime); echo $((b - a)); systemctl show --value --property=Result,ExecMainStatus ${UNIT}.service`,
          { timeoutMs: 60_000 },
        );
        const [seconds, ...result] = stdout.trim().split('\n');
        expect(Number(seconds)).toBeLessThanOrEqual(5);
        expect(result.sort()).toEqual(['0', 'success']);
        // The socket is systemd's: the next client starts the agent again.
        expect(await client(guest, `my $s = vsock(); print $s "$ping\\n"; print line($s, 60), "\\n";`)).toEqual([
          '{"return": {}}',
        ]);
      },
    );

    // The last one: it takes the package away.
    rarely('a package installed over itself starts the agent anew where it is: on the vsock', async () => {
      const guest = shared();
      await client(guest, `my $s = vsock(); print $s "$ping\\n"; line($s, 60);`);
      const pid = await guestPid(guest, { unit: `${UNIT}.service` });
      await guest.copyIn([fileURLToPath(new URL('../../build/fsfreeze-agent.deb', import.meta.url))], '/var/tmp/deb');
      await guest.exec('dpkg -i /var/tmp/deb/*.deb', { timeoutMs: 180_000 });
      expect(await guestPid(guest, { unit: `${UNIT}.service` })).not.toBe(pid);
      expect(await state(guest, PORT_AGENT)).toBe('inactive');
      expect(await client(guest, `my $s = vsock(); print $s "$ping\\n"; print line($s, 60), "\\n";`)).toEqual([
        '{"return": {}}',
      ]);
      await guest.exec('dpkg -r fsfreeze-agent', { timeoutMs: 120_000 });
      expect(await state(guest, `${UNIT}.service`)).toBe('inactive');
      expect(await state(guest, `${UNIT}.socket`)).toBe('inactive');
    });
  });
