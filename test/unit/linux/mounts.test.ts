// Mounts as filesystems: grouped, hidden, reachable or not ours.
import { expect, test } from 'vitest';
import { tableOf } from '../../support/mount-table.js';

const table = (...lines: string[]): ReturnType<typeof tableOf> => tableOf(`${lines.join('\n')}\n`);

test('bind mounts are one filesystem, and the whole one is opened rather than a file', () => {
  const { filesystems } = table(
    '20 1 8:1 / / rw - ext4 /dev/sda1 rw',
    '21 20 8:2 /etc/hosts /etc/hosts rw - xfs /dev/sda2 rw',
    '22 20 8:2 / /srv rw - xfs /dev/sda2 rw',
  );
  expect(filesystems.map(({ mountpoint, mounts, age }) => [mountpoint, mounts.length, age])).toEqual([
    ['/', 1, 0],
    ['/srv', 2, 1],
  ]);
});

test('subvolumes of one btrfs are one filesystem, two of them are two', () => {
  const { filesystems } = table(
    '20 1 0:30 /root / rw - btrfs /dev/sda2 rw,subvol=/root',
    '21 20 0:31 /home /home rw - btrfs /dev/sda2 rw,subvol=/home',
    '22 20 0:40 / /data rw - btrfs /dev/sdb rw,subvol=/',
  );
  expect(filesystems.map(({ mounts }) => mounts.map(({ mountpoint }) => mountpoint))).toEqual([
    ['/', '/home'],
    ['/data'],
  ]);
});

test('mounted over twice: only the last is reachable there, and a path leads through it', () => {
  const { filesystems, resolve } = table(
    '20 1 8:1 / / rw - ext4 /dev/sda1 rw',
    '21 20 8:2 / /mnt rw - ext4 /dev/sda2 rw',
    '22 21 8:3 / /mnt rw - ext4 /dev/sda3 rw',
  );
  expect(filesystems.map(({ reachable }) => reachable.length)).toEqual([1, 0, 1]);
  expect(resolve('/mnt/x/y')?.id).toBe(22);
  expect(resolve('/mntx')?.id).toBe(20);
});

test('below a directory that another mount hides nothing is reachable', () => {
  const { filesystems, filesystemOf } = table(
    '20 1 8:1 / / rw - ext4 /dev/sda1 rw',
    '21 20 8:2 / /a/b rw - ext4 /dev/sda2 rw',
    '22 20 8:3 / /a rw - ext4 /dev/sda3 rw',
  );
  expect(filesystems.map(({ mountpoint, reachable }) => [mountpoint, reachable.length])).toEqual([
    ['/', 1],
    ['/a/b', 0],
    ['/a', 1],
  ]);
  expect(filesystemOf('/a/b/file')?.device).toBe('8:3');
});

test('read-only is the superblock, not one mount of it', () => {
  const { filesystems } = table(
    '20 1 8:1 / / rw - ext4 /dev/sda1 rw',
    '21 20 8:2 / /ro ro - ext4 /dev/sda2 ro',
    '22 20 8:3 / /bind ro - ext4 /dev/sda3 rw',
  );
  expect(filesystems.map(({ readOnly }) => readOnly)).toEqual([false, true, false]);
});

test('a cluster filesystem on a block device of this machine is data on it, whatever its name', () => {
  const { filesystems, skipped } = table(
    '20 1 8:1 / / rw - ext4 /dev/sda1 rw',
    '21 20 8:17 / /shared rw - ocfs2 /dev/sdb1 rw',
    '22 20 8:33 / /gfs rw - gfs2 /dev/sdc1 rw',
    '23 20 0:60 / /remote rw - ocfs2 none rw',
  );
  expect(filesystems.map(({ mountpoint }) => mountpoint)).toEqual(['/', '/shared', '/gfs']);
  expect(skipped).toEqual([{ what: '/remote', reason: 'ocfs2 is a network filesystem' }]);
});

test('network, FUSE and autofs are skipped with a reason, pseudo filesystems without a word', () => {
  const { filesystems, skipped } = table(
    '20 1 8:1 / / rw - ext4 /dev/sda1 rw',
    '21 20 0:5 / /proc rw - proc proc rw',
    '22 20 0:50 / /nfs rw - nfs4 server:/x rw',
    '23 20 0:51 / /ssh rw - fuse.sshfs host: rw',
    '24 20 0:52 / /auto rw - autofs systemd-1 rw',
    '25 20 8:9 / /ntfs rw - fuseblk /dev/sda9 rw',
    '26 20 0:53 / /run rw - tmpfs tmpfs rw',
    '27 20 0:54 / /merged rw - overlay overlay rw',
  );
  expect(filesystems.map(({ type }) => type)).toEqual(['ext4', 'fuseblk']);
  expect(skipped).toEqual([
    { what: '/nfs', reason: 'nfs4 is a network filesystem' },
    { what: '/ssh', reason: 'fuse.sshfs is served by a process' },
    { what: '/auto', reason: 'autofs is never opened' },
  ]);
});
