#!/bin/sh
# Packages of a Debian suite, unpacked into ROOTFS; nothing is installed. Asks the archive this machine's apt is set up
# with (or FSB_DEBIAN_MIRROR), with lists and cache of its own.
#
#   fetch-packages.sh [--with-dependencies] SUITE ROOTFS PACKAGE...
set -eu
dependencies=
if [ "$1" = --with-dependencies ]; then dependencies=yes; shift; fi
suite=$1 rootfs=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
: > "$work/status"
# Security and other archives have a suite's name and more as codename.
archive=${FSB_DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' "Codename: $(. /etc/os-release && echo "$VERSION_CODENAME")" | head -n 1)}
[ -n "$archive" ] || { echo 'fetch-packages: expected a Debian archive in the lists of apt (apt-get update makes them), or FSB_DEBIAN_MIRROR; found none' >&2; exit 1; }
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $suite main" > "$work/sources.list"
apt() {
  apt-get -qq -o Dir::State="$work" -o Dir::State::lists="$work/lists" -o Dir::State::status="$work/status" \
    -o Dir::Cache="$work/cache" -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Acquire::Languages=none -o Acquire::Retries=3 -o APT::Sandbox::User=root "$@"
}
apt update
if [ -n "$dependencies" ]; then
  apt -y --no-install-recommends --download-only install "$@" > /dev/null
else
  (cd "$work/cache/archives" && apt download "$@")
fi
for package in "$work"/cache/archives/*.deb; do
  case ${package##*/} in
    gcc-*-base_* | init-system-helpers_*) ;;
    *) dpkg --fsys-tarfile "$package" | tar -x -C "$rootfs" --keep-directory-symlink --exclude='./usr/share' ;;
  esac
done
