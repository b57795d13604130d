#!/bin/sh
# Run under `unshare --user --map-root-user --mount --pid --net --uts --ipc` by a user without rights on this machine.
# Turns the new namespaces into a chamber: a tmpfs root that holds what ROOTFS holds, proc, sysfs and three devices, no
# filesystem of this machine and none that can be frozen; a host name of its own. Then becomes COMMAND, as process 1.
#
#   chamber.sh ROOTFS COMMAND...
set -eu
source=$1
shift
# Over a folder that every machine has: nothing is left of it when the namespace is gone.
mount -t tmpfs -o mode=755 tmpfs /mnt
cp -R "$source/." /mnt/
cd /mnt
mkdir -p proc sys dev etc run var/run tmp old
for device in null zero urandom; do
  : > "dev/$device"
  mount --bind "/dev/$device" "dev/$device"
done
mount -t proc proc proc
mount -t sysfs sysfs sys
busybox hostname chamber
pivot_root . old
exec /bin/busybox sh -c '
  cd /
  /bin/busybox umount -l /old
  /bin/busybox rmdir /old
  # A last look from inside: nothing but tmpfs, proc, sysfs and the devices.
  while read -r line; do
    type=${line##* - }
    case ${type%% *} in
      tmpfs | proc | sysfs | devtmpfs) ;;
      *) echo "chamber: found ${type%% *}" >&2; exit 3 ;;
    esac
  done < /proc/self/mountinfo
  exec "$@"' sh "$@"
