// A PostgreSQL server in a container of podman, as people run it: its own process and mount namespaces, its data in a volume,
// its socket where only the container has it. Without a network there is no registry: the guest's own root, seen through an
// overlay, is the image.

/** A script for the guest. */
export const CONTAINER = `set -e
cat >/usr/local/bin/pg-entry <<'ENTRY'
#!/bin/sh
set -e
export PATH=/usr/lib/postgresql/15/bin:$PATH
chown postgres: /pgdata
[ -s /pgdata/PG_VERSION ] || setpriv --reuid postgres --regid postgres --clear-groups initdb -D /pgdata -A scram-sha-256 --pwfile=/usr/local/share/pg-password >/dev/null
exec setpriv --reuid postgres --regid postgres --clear-groups postgres -D /pgdata -k /tmp
ENTRY
chmod 755 /usr/local/bin/pg-entry
echo guest >/usr/local/share/pg-password
podman run -d --name pg --network none -v pgdata:/pgdata --rootfs /:O /usr/local/bin/pg-entry
n=0; until podman exec pg sh -c 'PGPASSWORD=guest psql -h /tmp -U postgres -c "select 1"'; do n=$((n+1)); [ $n -lt 60 ] || { podman logs pg; exit 1; }; sleep 1; done`;

/** Its server still takes writes. */
export function containerAnswers(): string {
  return `podman exec pg sh -c 'PGPASSWORD=guest psql -h /tmp -U postgres -c "create table after_thaw()"'`;
}
