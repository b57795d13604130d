// The filesystems that a guest of five disks has besides its root and data: made in the guest.

/** The six filesystems, over the five disks: `root`, `data` (PostgreSQL's log), `ext`, `btrfs` and `lvm` (the last two). */
export const MOUNTPOINTS = ['/', '/srv/data', '/srv/ext', '/srv/btrfs', '/srv/lv-ext', '/srv/lv-xfs'] as const;

/** A script for the guest: `ext`, `btrfs` and `lvm` are blank disks. */
export const FILESYSTEMS = `set -eu
by=/dev/disk/by-id/virtio
mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 -L ext $by-ext
mkfs.btrfs -q -L btrfs $by-btrfs
pvcreate -q $by-lvm; vgcreate -q vg $by-lvm
lvcreate -q -y -n ext -L 100m vg; lvcreate -q -y -n xfs -L 320m vg
mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 /dev/vg/ext
mkfs.xfs -q /dev/vg/xfs
cd /srv; mkdir -p ext btrfs lv-ext lv-xfs
cat >>/etc/fstab <<'FSTAB'
LABEL=ext   /srv/ext    ext4  defaults,nofail 0 2
LABEL=btrfs /srv/btrfs  btrfs defaults,nofail 0 2
/dev/vg/ext /srv/lv-ext ext4  defaults,nofail 0 2
/dev/vg/xfs /srv/lv-xfs xfs   defaults,nofail 0 2
FSTAB
systemctl daemon-reload
for name in ext btrfs lv-ext lv-xfs; do mount /srv/$name; done
`;
