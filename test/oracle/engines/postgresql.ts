// PostgreSQL: its data lies on the root disk, its WAL on the other. Its writer holds nothing, so no hold can be lost.
import type { EngineFor } from '../engine.js';

export const postgresql: EngineFor = ({ postgresql: { unit, binaries } }) => {
  const sql = (statements: string): string =>
    `runuser -u postgres -- psql -d demo -v ON_ERROR_STOP=1 -q -At -F ' ' -c "${statements}"`;
  return {
    name: 'postgresql',
    streams: [
      {
        name: 'postgresql.table',
        driver: 'postgresql',
        at: '5432',
        table: 'operations',
        held: false,
        contents: sql('SELECT client, number FROM operations'),
      },
    ],
    version: `${binaries}/postgres --version`,
    install: 'true',
    start: `systemctl start --no-block ${unit}
      until ${binaries}/pg_isready -q -h 127.0.0.1; do
        ! systemctl is-failed -q ${unit} || { journalctl -b -o cat --no-pager -u ${unit} | tail -n 12; exit 1; }
        sleep 0.05
      done`,
    reset: sql(
      `ALTER ROLE demo PASSWORD 'demo'; DROP TABLE IF EXISTS operations;
      CREATE TABLE operations (client int, number int, pad text, PRIMARY KEY (client, number)); GRANT ALL ON operations TO demo`,
    ),
    check: `runuser -u postgres -- ${binaries}/pg_amcheck --all --install-missing --heapallindexed 2>&1`,
  };
};
