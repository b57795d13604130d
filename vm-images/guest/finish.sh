#!/bin/sh
# Runs once in the booted guest, as root, at the end of the build: what needs the real disks and a running database.
# Afterwards the builder shuts the guest down cleanly, and the disks become the image.
# $1: the version of PostgreSQL.
set -eu
unit=postgresql@$1-main.service
main=/var/lib/postgresql/$1/main
mountpoint -q /srv/data

# The write-ahead log on the other disk: only then does a cut that is not atomic over both disks break the database.
[ -L "$main/pg_wal" ] || {
  install -d -o postgres -g postgres -m 0700 /srv/data/postgresql
  mv "$main/pg_wal" /srv/data/postgresql/pg_wal
  ln -s /srv/data/postgresql/pg_wal "$main/pg_wal"
  chown -h postgres:postgres "$main/pg_wal"
}
systemctl start "$unit"
runuser -u postgres -- psql -v ON_ERROR_STOP=1 -q -d postgres -c 'CREATE ROLE demo LOGIN' -c 'CREATE DATABASE demo OWNER demo'
runuser -u postgres -- psql -v ON_ERROR_STOP=1 -q -d demo -c 'CREATE EXTENSION amcheck'
runuser -u postgres -- psql -v ON_ERROR_STOP=1 -q -d template1 -c 'VACUUM (FREEZE)' -c 'CHECKPOINT'

systemctl stop "$unit"

journalctl --sync || true
sync
fstrim / || true
fstrim /srv/data || true
