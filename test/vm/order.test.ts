// What lies on what, for real: LVM over two disks, thin and classic snapshot volumes, filesystems in files on those,
// btrfs over two disks with two subvolumes. The freeze goes through, in the right order, each disk is named by its
// serial, and half of a filesystem is worth nothing (freeze path, step 4; "What a level means").
import path from 'node:path';
import { expect, test } from 'vitest';
import type { FilesystemReport, FreezeReport } from '../../src/consistency.js';
import { bootGuest, createOverlay, type Guest } from '../../src/testing/index.js';
import { agentGuest, bridge, requester, userModeAgent } from '../support/agent-guest.js';
import { beginWrites, lastWrite, writesDone } from '../support/first-write.js';
import { kernels } from '../support/variants.js';
import { requires, USER_MODE } from '../support/requires.js';
import { sharedGuest } from '../support/shared-guest.js';

const DISKS = { pv1: 320, pv2: 320, pv3: 400, bt1: 160, bt2: 160 } as const;

/** The variables that name the disks, as in the guest. */
const variables = (guest: Guest): string =>
  Object.keys(DISKS)
    .map((name) => `${name}=${guest.disk(name).path}`)
    .join(' ');

const SETUP = `set -e
quick='-q -E lazy_itable_init=0,lazy_journal_init=0'
mkdir -p /srv/lv /srv/inner /srv/innermost /srv/thin /srv/origin /srv/snap /srv/one /srv/two
vgcreate -q vg1 $pv1 $pv2 >/dev/null
lvcreate -q -i 2 -L 256M -n both vg1 >/dev/null
mkfs.ext4 $quick /dev/vg1/both && mount /dev/vg1/both /srv/lv
# A file on that volume, a filesystem in it, and once more.
truncate -s 120M /srv/lv/inner.img && mkfs.ext4 $quick /srv/lv/inner.img && mount -o loop /srv/lv/inner.img /srv/inner
truncate -s 40M /srv/inner/inner.img && mkfs.ext4 $quick /srv/inner/inner.img
mount -o loop /srv/inner/inner.img /srv/innermost
vgcreate -q vg2 $pv3 >/dev/null
lvcreate -q -L 64M -T vg2/pool -V 64M -n thin >/dev/null
mkfs.ext4 $quick /dev/vg2/thin && mount /dev/vg2/thin /srv/thin
lvcreate -q -L 64M -n origin vg2 >/dev/null && mkfs.ext4 $quick /dev/vg2/origin
mount /dev/vg2/origin /srv/origin
lvcreate -q -s -L 32M -n snap vg2/origin >/dev/null && mount /dev/vg2/snap /srv/snap
mkfs.btrfs -q -d raid0 -m raid1 $bt1 $bt2 && mount $bt1 /srv/one
btrfs -q subvolume create /srv/one/a && btrfs -q subvolume create /srv/one/b && umount /srv/one
mount -o subvol=a $bt1 /srv/one && mount -o subvol=b $bt1 /srv/two
`;

const MOUNT_CUT = `set -e
udevadm settle; vgchange -q -a y >/dev/null; udevadm settle
cd /srv && mkdir -p lv inner innermost thin origin one two
mount -o ro,noload /dev/vg1/both lv
mount -o ro,noload,loop lv/inner.img inner
mount -o ro,noload,loop inner/inner.img innermost
mount -o ro,noload /dev/vg2/thin thin
mount -o ro,noload /dev/vg2/origin origin
mount -o ro,subvol=a $bt1 one
mount -o ro,subvol=b $bt1 two
cat lv/name inner/name innermost/name thin/name origin/name one/name two/name
for device in /dev/vg1/both /dev/vg2/thin /dev/vg2/origin; do ! dumpe2fs -h $device 2>/dev/null | grep -q needs_recovery; done
`;

/** Mount point to the serials of the disks it lies on. */
const EXPECTED = {
  '/': ['root'],
  '/srv/data': ['data'],
  '/srv/lv': ['pv1', 'pv2'],
  '/srv/inner': ['pv1', 'pv2'],
  '/srv/innermost': ['pv1', 'pv2'],
  '/srv/thin': ['pv3'],
  '/srv/origin': ['pv3'],
  '/srv/snap': ['pv3'],
  '/srv/one': ['bt1', 'bt2'],
} as const;
const WRITTEN = ['/var/tmp', ...Object.keys(EXPECTED).slice(1), '/srv/two'];

async function stack(guest: Guest): Promise<void> {
  for (const [name, sizeMiB] of Object.entries(DISKS)) await guest.addBlankDisk(name, sizeMiB);
  await guest.exec(`${variables(guest)}\n${SETUP}`, { timeoutMs: 120_000 });
}

const at = (report: FreezeReport, mountpoint: string): FilesystemReport => {
  const found = report.filesystems.find((one) => one.mountpoint === mountpoint);
  if (found === undefined) throw new Error(`no filesystem ${mountpoint} in the report`);
  return found;
};

const serials = ({ disks }: FilesystemReport): readonly string[] => disks.map(({ serial }) => serial ?? '?').sort();

/** Those of them that the cut is worth something for. */
const concerned = (report: FreezeReport): readonly string[] =>
  report.filesystems
    .filter((one) => one.concerned)
    .map(({ mountpoint }) => mountpoint)
    .sort();

/** Each act on `second` was begun when the one on `first` was over. */
function expectBefore(report: FreezeReport, act: 'freeze' | 'thaw', first: string, second: string): void {
  const [a, b] = [at(report, first)[act], at(report, second)[act]];
  if (a === undefined || b === undefined) throw new Error(`${first} or ${second} has no ${act}`);
  expect(b.startMs, `${act}: ${first} before ${second}`).toBeGreaterThanOrEqual(a.endMs);
}

/** What the kernel says, in the order that it is right. `addressed`: the disks have serial numbers. */
async function expectInOrder(guest: Guest, addressed: boolean): Promise<void> {
  await using host = await requester(guest);
  const session = await host.coordinator.freeze({ requester: 'test', leaseMs: 30_000, require: 'application' });
  const writes = await beginWrites(guest, WRITTEN);
  expect(await writesDone(guest, writes)).toEqual([]);
  const report = await session.thaw();
  await lastWrite(guest, writes, 30_000);

  expect(report).toMatchObject({ outcome: 'ok', level: 'application' });
  // btrfs once, though mounted twice.
  expect(report.filesystems.map(({ mountpoint }) => mountpoint).sort()).toEqual(Object.keys(EXPECTED).sort());
  for (const [mountpoint, expected] of Object.entries(EXPECTED)) {
    const filesystem = at(report, mountpoint);
    expect(filesystem).toMatchObject({ held: 'frozen', concerned: true, freezeErrno: 0, thawErrno: 0 });
    if (addressed) expect({ mountpoint, serials: serials(filesystem) }).toEqual({ mountpoint, serials: expected });
  }
  for (const act of ['freeze', 'thaw'] as const) {
    const order = ['/srv/innermost', '/srv/inner', '/srv/lv'];
    const [first = '', second = '', third = ''] = act === 'freeze' ? order : order.toReversed();
    expectBefore(report, act, first, second);
    expectBefore(report, act, second, third);
  }
}

for (const kernel of kernels('6.12'))
  requires(...USER_MODE)(`filesystems on filesystems, kernel ${kernel}`, () => {
    const shared = sharedGuest(async () => await userModeAgent({ kernel }), stack);

    test('inner ones freeze first and thaw last, and all take writes again', async () => {
      await expectInOrder(shared(), false);
    });
  });

requires(
  'qemu-system-x86_64',
  'qemu-img',
  'mmdebstrap',
)('filesystems on filesystems, in QEMU', () => {
  const shared = sharedGuest(agentGuest, stack);

  test('inner ones freeze first and thaw last, each on the disks it lies on, and all take writes again', async () => {
    await expectInOrder(shared(), true);
  });

  test('a filesystem of which the cut has one disk of two is worth nothing; with both it is held', async () => {
    await using host = await requester(shared());
    const freeze = async (names: readonly string[], require: 'filesystem' | 'none') =>
      await host.coordinator.freeze({
        requester: 'test',
        leaseMs: 30_000,
        require,
        disks: names.map((serial) => ({ serial })),
      });
    for (const [half, missing] of [
      ['pv1', '/srv/lv'],
      ['bt2', '/srv/one'],
    ] as const) {
      await expect(freeze([half], 'filesystem')).rejects.toThrow(missing);
      const session = await freeze([half], 'none');
      const report = await session.thaw();
      expect(report).toMatchObject({ outcome: 'ok', level: 'none' });
      expect(report.evidence.join('\n')).toContain(missing);
    }
    const session = await freeze(['pv2', 'pv1'], 'filesystem');
    const report = await session.thaw();
    expect(report).toMatchObject({ outcome: 'ok', level: 'filesystem' });
    expect(concerned(report)).toEqual(['/srv/inner', '/srv/innermost', '/srv/lv']);
  });

  test('the host tool cuts all of it at once, and what was cut is whole', async () => {
    const names = ['lv', 'inner', 'innermost', 'thin', 'origin', 'one', 'two'];
    // Files on the outer ones are the data of the inner ones; nothing of this is synced.
    await shared().exec(`for m in ${names.join(' ')}; do echo $m >/srv/$m/name; done`);
    const created = await bridge(shared(), ['snapshot', 'create', '--name', 'set']);
    expect(created).toMatchObject({ exitCode: 0, json: { level: 'application', guest: { outcome: 'ok' } } });

    const bases = Object.fromEntries(shared().disks.map(({ node, file, format }) => [node, { file, format }] as const));
    await using second = await bootGuest({ bases });
    for (const name of Object.keys(DISKS)) {
      const { file } = await createOverlay(path.join(second.dir, `${name}.qcow2`), bases[name] ?? shared().disk(name));
      await second.hotplugDisk(file, { name });
    }
    // ext4 was frozen, so its journal has nothing to replay: it mounts where recovery is forbidden.
    const { stdout } = await second.exec(`${variables(second)}\n${MOUNT_CUT}`, { timeoutMs: 120_000 });
    expect(stdout.trim().split('\n')).toEqual(names);
  });
});
