// SQLite: a database with a WAL on the root disk, and one with a rollback journal on the data disk.
import { ON_DATA, ON_ROOT, type Engine, type Stream } from '../engine.js';

const FILES = { wal: `${ON_ROOT}/wal.db`, rollback: `${ON_DATA}/rollback.db` } as const;
const MODES = { wal: 'WAL', rollback: 'DELETE' } as const;
const KINDS = ['wal', 'rollback'] as const;

const each = (line: (file: string) => string): string => KINDS.map((kind) => line(FILES[kind])).join(' && ');

export const sqlite = (): Engine => ({
  name: 'sqlite',
  streams: KINDS.map((kind): Stream => ({
    name: `sqlite.${kind}`,
    driver: 'sqlite',
    at: FILES[kind],
    table: kind,
    held: true,
    contents: `sqlite3 -batch -separator ' ' ${FILES[kind]} 'SELECT client, number FROM operations'`,
  })),
  version: 'sqlite3 --version',
  install: `mkdir -p ${ON_ROOT} ${ON_DATA} /etc/fsfreeze-bridge
    printf '%s\\n' ${Object.values(FILES).join(' ')} >/etc/fsfreeze-bridge/sqlite.conf
    ${KINDS.map((kind) => `sqlite3 -batch ${FILES[kind]} 'PRAGMA journal_mode=${MODES[kind]}; CREATE TABLE operations (client INT, number INT, pad TEXT, PRIMARY KEY (client, number))'`).join(' && ')}`,
  // Who opens it first recovers it.
  start: each((file) => `sqlite3 -batch ${file} 'SELECT count(*) FROM operations'`),
  reset: each((file) => `sqlite3 -batch ${file} 'DELETE FROM operations'`),
  check: `for file in ${Object.values(FILES).join(' ')}; do
      found=$(sqlite3 -batch $file 'PRAGMA integrity_check' 2>&1)
      [ "$found" = ok ] || { echo "$file: $found"; exit 1; }
    done`,
  lost: {
    writer: '50-sqlite',
    hook: `[ "$1" = thaw ] || { ${each((file) => `sqlite3 -batch -cmd '.timeout 3000' ${file} 'BEGIN IMMEDIATE'`)}; }`,
  },
});
