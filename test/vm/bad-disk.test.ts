// Disks in the guest that lose writes, or die, or cannot be read in places (device-mapper's targets `error`, `flakey` and
// `dust`): the level is what reached the disk, and nobody else waits for it (freeze path, "What a level means").
import { expect, test } from 'vitest';
import type { FreezeReport, FreezeRequest } from '../../src/consistency.js';
import type { Guest } from '../../src/testing/index.js';
import { agentGuest, requester, userModeAgent, type Requester } from '../support/agent-guest.js';
import { beginWrites, lastWrite } from '../support/first-write.js';
import { kernels } from '../support/variants.js';
import { requires, USER_MODE } from '../support/requires.js';
import { sharedGuest } from '../support/shared-guest.js';

const TYPES = ['ext4', 'xfs'] as const;
type Type = (typeof TYPES)[number];
const GOOD = ['/var/tmp', '/srv/data'];

// A filesystem with a file in one piece, and tables for its device: all good; that file bad, flaky (writes fail, reads do
// not) or dusty (blocks of it cannot be read); all bad.
const setup = (type: Type, device: string): string => `set -e
d=${device}
size=$(blockdev --getsz $d)
mkdir -p /run/${type} /srv/${type} && cd /run/${type}
echo "0 $size linear $d 0" >good && echo "0 $size error" >dead
dmsetup create ${type} good
mkfs.${type} -q /dev/mapper/${type} && mount /dev/mapper/${type} /srv/${type}
dd if=/dev/zero of=/srv/${type}/file bs=1M count=4 conv=fsync 2>/dev/null && sync -f /srv/${type}
set -- $(filefrag -v -b512 /srv/${type}/file | tr -d : | awk '$1 == "0" { sub(/[.].*/, "", $4); print $4, $6 }')
table() { printf '0 %s linear %s 0\n%s\n%s %s linear %s %s\n' $1 $d "$1 $2 $3" $(($1 + $2)) $((size - $1 - $2)) $d $(($1 + $2)); }
table $1 $2 error >holed
table $1 $2 "flakey $d $1 0 3600 1 error_writes" >flaky
echo "0 $size dust $d 0 512" >dusty && echo $1 >first
`;
type Table = 'good' | 'holed' | 'flaky' | 'dusty' | 'dead';

const suites = [
  ...kernels('6.12').map((kernel) => ({
    name: `kernel ${kernel}`,
    needs: USER_MODE,
    start: async (): Promise<Guest> => await userModeAgent({ kernel }),
    hasTargets: true, // dm-dust is not in the kernel of QEMU's guests
  })),
  {
    name: 'in QEMU',
    needs: ['qemu-system-x86_64', 'qemu-img', 'mmdebstrap'],
    start: agentGuest,
    hasTargets: false,
  },
];

for (const { name, needs, start, hasTargets } of suites)
  requires(...needs)(`a bad disk, ${name}`, () => {
    const shared = sharedGuest(start, async (guest) => {
      for (const type of TYPES) {
        const { path } = await guest.addBlankDisk(type, 400);
        await guest.exec(setup(type, path), { timeoutMs: 120_000 });
      }
    });

    /** Nothing is frozen or flushed for it, as nothing is when a disk fails. */
    async function use(table: Table, ...types: readonly Type[]): Promise<void> {
      for (const type of types)
        await shared().exec(`dmsetup suspend --nolockfs --noflush ${type} && dmsetup load ${type} /run/${type}/${table}
        dmsetup resume --noudevsync ${type}`);
    }

    async function overwrite(...types: readonly Type[]): Promise<void> {
      for (const type of types)
        await shared().exec(`dd if=/dev/urandom of=/srv/${type}/file bs=1M count=4 conv=notrunc 2>/dev/null`);
    }

    const freeze = async ({ coordinator }: Requester, require: FreezeRequest['require']) =>
      await coordinator.freeze({ requester: 'test', leaseMs: 30_000, require });

    const of = (report: FreezeReport, type: Type) =>
      report.filesystems.find(({ mountpoint }) => mountpoint === `/srv/${type}`);
    const rest = (report: FreezeReport) =>
      report.filesystems.filter(({ mountpoint }) => TYPES.every((type) => mountpoint !== `/srv/${type}`));

    test('a write that was lost costs the level, once', async () => {
      await using host = await requester(shared());
      await use('holed', ...TYPES);
      for (const [type, other] of [TYPES, TYPES.toReversed()] as const) {
        await overwrite(type);
        await expect(freeze(host, 'application')).rejects.toThrow(`/srv/${type}`);
        await overwrite(type);
        const report = await (await freeze(host, 'crash')).thaw();
        expect(report).toMatchObject({ outcome: 'ok', level: 'crash' });
        expect(of(report, type)).toMatchObject({
          held: 'none',
          reason: expect.stringContaining('syncfs: EIO') as string,
        });
        expect(of(report, other)).toMatchObject({ held: 'frozen' });
      }
      // qemu-ga asks nobody whether what was written is there; nor does this command, whose answer has no place for it.
      await overwrite(...TYPES);
      expect(await host.client.call('guest-fsfreeze-freeze', {}, { timeoutMs: 30_000 })).toBe(4);
      expect(await host.client.call('guest-fsfreeze-thaw', {}, { timeoutMs: 30_000 })).toBe(4);
      const { report } = await host.client.call('bridge-status', {}, { timeoutMs: 10_000 });
      expect(report).toMatchObject({ level: 'crash' });

      await use('good', ...TYPES);
      await overwrite(...TYPES);
      expect(await (await freeze(host, 'application')).thaw()).toMatchObject({ outcome: 'ok', level: 'application' });
    });

    if (hasTargets) {
      test('a disk that takes no writes for a while costs the level for as long', async () => {
        await using host = await requester(shared());
        await use('flaky', ...TYPES);
        await overwrite(...TYPES);
        await expect(freeze(host, 'application')).rejects.toThrow(/\/srv\/(ext4|xfs)/);
        await overwrite(...TYPES);
        const report = await (await freeze(host, 'crash')).thaw();
        expect(report).toMatchObject({ outcome: 'ok', level: 'crash' });
        for (const type of TYPES)
          expect(of(report, type)).toMatchObject({ held: 'none', reason: expect.stringContaining('EIO') as string });
        await use('good', ...TYPES);
        await overwrite(...TYPES);
        // What FIFREEZE told of, syncfs tells of once more.
        await (await freeze(host, 'crash')).thaw();
        await overwrite(...TYPES);
        expect(await (await freeze(host, 'application')).thaw()).toMatchObject({ outcome: 'ok', level: 'application' });
      });

      test('a disk that cannot be read in places has lost nothing', async () => {
        await using host = await requester(shared());
        await use('dusty', ...TYPES);
        for (const type of TYPES)
          await shared().exec(`for block in 0 1 2 3; do
          dmsetup message ${type} 0 addbadblock $(( $(cat /run/${type}/first) + block )); done >/dev/null
          dmsetup message ${type} 0 enable && echo 1 >/proc/sys/vm/drop_caches
          ! dd if=/srv/${type}/file of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null`);
        const report = await (await freeze(host, 'application')).thaw();
        expect(report).toMatchObject({ outcome: 'ok', level: 'application' });
        for (const type of TYPES) expect(of(report, type)).toMatchObject({ held: 'frozen' });
        await use('good', ...TYPES);
      });
    }

    test('a disk that dies while it is frozen holds up nobody, and one that is dead already neither', async () => {
      await using host = await requester(shared());
      // What was cut before it died is good.
      const session = await freeze(host, 'application');
      await use('dead', ...TYPES);
      const first = await beginWrites(shared(), GOOD);
      expect(await session.thaw()).toMatchObject({ outcome: 'ok', level: 'application' });
      await lastWrite(shared(), first, 10_000);

      await shared().exec('for d in ext4 xfs; do echo x >/srv/$d/new; sync -f /srv/$d; done 2>/dev/null', {
        check: false,
      });
      await expect(freeze(host, 'application')).rejects.toThrow(/\/srv\/(ext4|xfs)/);
      const lower = await freeze(host, 'crash');
      const second = await beginWrites(shared(), GOOD);
      expect(lower.report.outcome).toBe('ok');
      const report = await lower.thaw();
      await lastWrite(shared(), second, 10_000);
      expect(report).toMatchObject({ outcome: 'ok', level: 'crash' });
      for (const type of TYPES) expect(of(report, type)).toMatchObject({ held: 'none' });
      expect(rest(report).map(({ held }) => held)).toEqual(['frozen', 'frozen']);
    });
  });
