// A guest with a thousand filesystems, on one disk: all of them freeze and thaw, and what thaws them stays small.
import { expect, test } from 'vitest';
import { waitForAgent, type Guest } from '../../src/testing/index.js';
import { addWriter, agentImage, requester } from '../support/agent-guest.js';
import { bootGuest } from '../../src/testing/index.js';
import { kernels } from '../support/variants.js';
import { requires, USER_MODE } from '../support/requires.js';
import { sharedGuest } from '../support/shared-guest.js';

const MANY = 1000;
const EACH_MIB = 3; // ext4 of 1 KiB blocks: less has no journal
const LIMIT = { timeoutMs: 120_000 };

// The devices by one call and the mounts by one program: a process in a user-mode guest takes up to 10 ms, and udev looks
// at each device with several.
const setup = (device: string): string => `set -e
systemctl stop -q systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket
truncate -s ${EACH_MIB}M /run/one.img && mkfs.ext4 -q -b 1024 -E lazy_itable_init=0,lazy_journal_init=0 /run/one.img
size=$((${EACH_MIB} * 2048)) table=
for i in $(seq 0 ${MANY - 1}); do table="$table;m$i,,,rw,0 $size linear ${device} $((i * size))"; done
dmsetup --noudevsync --noudevrules create --concise "\${table#;}"
dmsetup mknodes
perl -e '
  open(my $image, "<", "/run/one.img") or die; local $/; my $all = <$image>;
  mkdir "/srv/many";
  for my $i (0 .. ${MANY - 1}) {
    my ($to, $on) = ("/dev/mapper/m$i", "/srv/many/$i");
    open(my $out, "+<", $to) or die "$to: $!";
    for (my $at = 0; $at < length $all; $at += 65536) {
      my $piece = substr($all, $at, 65536);
      next if $piece !~ /[^\\0]/;
      sysseek($out, $at, 0); syswrite($out, $piece) == length $piece or die "$to: $!";
    }
    close $out or die;
    mkdir $on; my $type = "ext4";
    syscall(165, $to, $on, $type, 0, 0) == 0 or die "$on: $!";
  }'
`;
const PROCESS =
  'pid=$(pgrep -x freezer); cut -d" " -f10 /proc/$pid/stat; awk \'/^VmRSS/ { print $2 }\' /proc/$pid/status';

for (const kernel of kernels('7.2'))
  requires(...USER_MODE)(`${MANY} filesystems, kernel ${kernel}`, () => {
    const shared = sharedGuest(
      async (): Promise<Guest> =>
        await bootGuest({ kind: 'user-mode', image: await agentImage(), kernel, memoryMiB: 3072 }),
      async (guest) => {
        const { path } = await guest.addBlankDisk('many', MANY * EACH_MIB);
        await guest.exec(setup(path), { timeoutMs: 400_000 });
        await waitForAgent(guest);
      },
    );
    /** Page faults so far, and what is resident. */
    const freezer = async (): Promise<{ faults: number; residentKib: number }> => {
      const [faults = NaN, residentKib = NaN] = (await shared().exec(PROCESS)).stdout.trim().split('\n').map(Number);
      return { faults, residentKib };
    };

    test('all of them freeze and thaw, the freezer takes no memory meanwhile, and stays small', async () => {
      await addWriter(shared(), '10-faults', `#!/bin/sh\n[ "$1" != freeze ] || { ${PROCESS}; } >/run/before\n`);
      await using host = await requester(shared());
      for (let times = 0; times < 2; times++) {
        expect(await host.client.call('guest-fsfreeze-freeze', {}, LIMIT)).toBe(MANY + 2);
        const frozen = await freezer();
        expect(await host.client.call('guest-fsfreeze-thaw', {}, LIMIT)).toBe(MANY + 2);
        const [before = NaN] = (await shared().exec('cat /run/before')).stdout.trim().split('\n').map(Number);
        // The hook ran right before the first FIFREEZE.
        expect((await freezer()).faults - before).toBe(0);
        expect(frozen.residentKib).toBeLessThan(12 * 1024);
      }
      const { report } = await host.client.call('bridge-status', {}, LIMIT);
      expect(report).toMatchObject({ outcome: 'ok', state: 'thawed' });
      expect(report?.filesystems.filter(({ held }) => held === 'frozen')).toHaveLength(MANY + 2);
    });
  });
