#!/bin/sh
# Runs once in the booted guest, as root, at the end of the build: what needs the real disks and a running database.
# Afterwards the builder shuts the guest down cleanly, and the disks become the image.
set -eu
mountpoint -q /srv/data

# The write-ahead log on the other disk: only then does a cut that is not atomic over both disks break the database.
systemctl stop postgresql@15-main.service
main=/var/lib/postgresql/15/main
[ -L "$main/pg_wal" ] || {
  install -d -o postgres -g postgres -m 0700 /srv/data/postgresql
  mv "$main/pg_wal" /srv/data/postgresql/pg_wal
  ln -s /srv/data/postgresql/pg_wal "$main/pg_wal"
  chown -h postgres:postgres "$main/pg_wal"
}
systemctl start postgresql@15-main.service
runuser -u postgres -- psql -v ON_ERROR_STOP=1 -q -d postgres -c 'CREATE ROLE demo LOGIN' -c 'CREATE DATABASE demo OWNER demo'
runuser -u postgres -- psql -v ON_ERROR_STOP=1 -q -d demo -c 'CREATE EXTENSION amcheck'
runuser -u postgres -- psql -v ON_ERROR_STOP=1 -q -d template1 -c 'VACUUM (FREEZE)' -c 'CHECKPOINT'

journalctl --sync || true
sync
fstrim / || true
fstrim /srv/data || true
