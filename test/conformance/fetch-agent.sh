#!/bin/sh
# The qemu-guest-agent of a Debian suite and the libraries it needs, unpacked into ROOTFS; nothing is installed. Asks
# the archive this machine's apt is set up with, with lists and cache of its own.
#
#   fetch-agent.sh SUITE ROOTFS
set -eu
suite=$1 rootfs=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
: > "$work/status"
# Security and other archives have a suite's name and more as codename.
archive=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' "Codename: $(. /etc/os-release && echo "$VERSION_CODENAME")" | head -n 1)
[ -n "$archive" ] || { echo 'fetch-agent: expected a Debian archive in the sources of apt, found none' >&2; exit 1; }
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $suite main" > "$work/sources.list"
apt() {
  apt-get -qq -o Dir::State="$work" -o Dir::State::lists="$work/lists" -o Dir::State::status="$work/status" \
    -o Dir::Cache="$work/cache" -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Acquire::Languages=none -o APT::Sandbox::User=root "$@"
}
apt update
apt -y --no-install-recommends --download-only install qemu-guest-agent > /dev/null
for package in "$work"/cache/archives/*.deb; do
  case ${package##*/} in
    gcc-*-base_* | init-system-helpers_*) ;;
    *) dpkg --fsys-tarfile "$package" | tar -x -C "$rootfs" --keep-directory-symlink --exclude='./usr/share' ;;
  esac
done
