#!/bin/sh
# in-guest-dragonsdawn.sh TARGET PATH...: what dragonsdawn-snapshot (0.1) does from the first writer held to the last one
# let go: writers one by one, for each filesystem a snapshot with a tenth of its size, mounted at once. What it looks up
# between (sizes, room, names) is left out: it counts for it.
set -e
target=$1
shift

writers() {
    phase=$1
    shift
    for writer in "${0%/*}"/writers.d/*; do "$writer" "$phase" "$@"; done
}

writers freeze "$@"
for path in "$@"; do
    volume=bench/${path##*/}
    lvcreate -s -n "${path##*/}-snap" -l 10%ORIGIN "$volume" >/dev/null
    mount "/dev/$volume-snap" "$target$path"
done
writers thaw "$@"
