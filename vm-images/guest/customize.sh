#!/bin/sh
# Last step inside mmdebstrap (a customize hook): $1 is the root of the new system, $2 this folder, $3 the version of
# PostgreSQL.
# Everything that needs a running system (the database's content, the write-ahead log's move) is finish.sh's.
set -eu
root=$1
recipe=$2
postgresql=$3

# The kernel without its package: linux-image depends on an initramfs generator that this guest never uses (it is
# booted with the initrd the builder makes), and generating one costs more than the rest of this script.
kernel=$(chroot "$root" apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
[ -n "$kernel" ] || { echo "customize.sh: linux-image-cloud-amd64 names no kernel package" >&2; exit 1; }
# From forky on that package is empty, and depends on those that have the binary (not in /boot) and the modules.
parts=$(chroot "$root" apt-cache depends "$kernel" | sed -n 's/^ *Depends: \(linux-\(binary\|modules\)-[0-9].*\)$/\1/p')
# shellcheck disable=SC2086 # words
chroot "$root" sh -c 'mkdir /tmp/kernel && cd /tmp/kernel && apt-get -q download "$@" && for package in ./*.deb; do
  dpkg-deb --fsys-tarfile "$package" | tar -x -C / --keep-directory-symlink --exclude=./usr/share || exit 1
done && rm -r /tmp/kernel' sh "$kernel" $parts
version=${kernel#linux-image-}
[ -e "$root/boot/vmlinuz-$version" ] || cp "$root/usr/lib/modules/$version/vmlinuz" "$root/boot/vmlinuz-$version"
chroot "$root" depmod "$version"

# Modes are set here: a checkout under another umask must give the same guest.
tar -C "$recipe/files" --owner=0 --group=0 --mode='u+rwX,go+rX,go-w' -c . | tar -C "$root" -x --keep-directory-symlink

echo guest >"$root/etc/hostname"
printf '127.0.0.1 localhost guest\n' >"$root/etc/hosts"
: >"$root/etc/machine-id" # an empty file, not none: systemd fills it in at the one boot of the build
: >"$root/etc/resolv.conf"
mkdir -p "$root/srv/data"
cat >"$root/etc/fstab" <<'FSTAB'
LABEL=fsb-root /         ext4 defaults,errors=remount-ro 0 1
LABEL=fsb-data /srv/data xfs  defaults,nofail            0 2
FSTAB

# What the tests do not look at, and what would write to a disk or cost time at its own moment.
for unit in \
  qemu-guest-agent.service \
  systemd-binfmt.service proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount \
  apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer man-db.timer fstrim.timer \
  e2scrub_all.timer e2scrub_reap.service \
  systemd-tmpfiles-clean.timer systemd-timesyncd.service systemd-pstore.service systemd-rfkill.service \
  systemd-update-utmp.service systemd-update-utmp-runlevel.service \
  getty.target getty-static.service console-getty.service serial-getty@ttyS0.service getty@tty1.service \
  systemd-hwdb-update.service lvm2-monitor.service blk-availability.service \
  networking.service systemd-networkd.service systemd-resolved.service; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
# dev-mqueue and modprobe@: loaded when somebody needs them.
for unit in modprobe@configfs.service modprobe@drm.service modprobe@efi_pstore.service modprobe@fuse.service \
  modprobe@dm_mod.service modprobe@loop.service systemd-modules-load.service dev-mqueue.mount systemd-sysusers.service \
  systemd-random-seed.service systemd-fsckd.socket systemd-fsckd.service; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

# The cluster is made here, at full speed; it must not have been made by the package's script with other settings. It is
# off: who needs it starts it.
chroot "$root" pg_createcluster --locale C.UTF-8 --start-conf manual "$postgresql" main -- --data-checksums
install -d "$root/etc/postgresql/$postgresql/main/conf.d"
cp "$root/usr/share/fsb/postgresql.conf" "$root/etc/postgresql/$postgresql/main/conf.d/fsb.conf"
cat "$root/usr/share/fsb/pg_hba.conf" >>"$root/etc/postgresql/$postgresql/main/pg_hba.conf"
chroot "$root" chown -R postgres:postgres "/etc/postgresql/$postgresql/main/conf.d"
# Debian's pg_ctlcluster is 100 processes and some Perl around this: 4 s of a slow guest.
cat >>"$root/etc/systemd/system/postgresql@.service.d/fsb.conf" <<UNIT
User=postgres
ExecStart=
ExecStart=/usr/lib/postgresql/$postgresql/bin/pg_ctl start -s -w -D /var/lib/postgresql/$postgresql/main -o '-c config_file=/etc/postgresql/$postgresql/main/postgresql.conf'
ExecStop=
ExecStop=/usr/lib/postgresql/$postgresql/bin/pg_ctl stop -s -m fast -D /var/lib/postgresql/$postgresql/main
UNIT

rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log "$root"/usr/share/doc/* "$root"/usr/share/man/*
