#!/bin/sh
# Run under `unshare -m --propagation private`. Turns the new mount namespace into one that holds a tmpfs root, proc,
# sysfs, devtmpfs and the loop-mounted images of one integration test, and nothing else of this machine; then becomes
# the guard that watches over them. All lies in DIR, which must be on tmpfs:
#
#   private-mounts.sh DIR SECONDS NAME...
#
# DIR/NAME.img holds the filesystem that appears at /mnt/NAME. NAME@OUTER, after OUTER: the image is moved onto OUTER, so
# that freezing OUTER makes a device that does not answer out of the loop under NAME. NAME%A%B is a btrfs over NAME.img and
# NAME-2.img: its root at /mnt/NAME, its subvolumes @A and @B at /mnt/A and /mnt/B. DIR/thaw-guard and DIR/freezer are
# static programs; DIR itself is /shared inside.
set -eu
dir=$1 seconds=$2
shift 2

[ "$(stat -f -c %T "$dir")" = tmpfs ] || { echo "private-mounts: $dir is not on tmpfs" >&2; exit 3; }
root=$dir/root
mkdir "$root"
mount -t tmpfs -o size=64m,mode=755 tmpfs "$root"
mkdir "$root/proc" "$root/sys" "$root/dev" "$root/shared" "$root/mnt" "$root/bin" "$root/old"
mount --bind /proc "$root/proc"
mount --bind /sys "$root/sys"
mount --bind /dev "$root/dev"
mount --bind "$dir" "$root/shared"
cp "$dir/thaw-guard" "$dir/freezer" "$(command -v busybox)" "$root/bin/"
points=
for word in "$@"; do
  case $word in *%*)
    name=${word%%%*}
    first=$(losetup -f --show "$dir/$name.img")
    second=$(losetup -f --show "$dir/$name-2.img")
    mkdir "$root/mnt/$name"
    mount -t btrfs -o "device=$first,device=$second" "$first" "$root/mnt/$name"
    points="$points /mnt/$name"
    rest=${word#*%}
    for name in ${rest%%%*} ${rest#*%}; do
      btrfs -q subvolume create "$root/mnt/${word%%%*}/@$name"
      mkdir "$root/mnt/$name"
      mount -t btrfs -o "device=$first,device=$second,subvol=@$name" "$first" "$root/mnt/$name"
      points="$points /mnt/$name"
    done
    # They let go of their images with the last mount.
    losetup -d "$first" "$second"
    continue
  esac
  name=${word%@*}
  image=$dir/$name.img
  if [ "$name" != "$word" ]; then
    cp --sparse=never "$image" "$root/mnt/${word#*@}/$name.img"
    image=$root/mnt/${word#*@}/$name.img
    sync -f "$image"
  fi
  mkdir "$root/mnt/$name"
  mount -o loop "$image" "$root/mnt/$name"
  points="$points /mnt/$name"
done
cd "$root"
pivot_root . old
exec /bin/busybox sh -c 'cd / && /bin/busybox umount -l /old && exec /bin/thaw-guard "$@"' sh "$seconds" $points
