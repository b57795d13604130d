// MariaDB and MySQL: tables with and without transactions. The tables lie on the root disk, InnoDB's redo log on the other.
import { MEMORY, ON_DATA, ON_ROOT, startServer, type Engine, type Stream } from '../engine.js';

interface Flavour {
  readonly name: string;
  readonly server: string;
  readonly client: string;
  /** Engines of tables; whether the writer holds them. */
  readonly tables: Readonly<Record<string, boolean>>;
  /** Makes the data directory, given as options. */
  readonly initialise: string;
  readonly options: string;
  readonly lost: { readonly writer: string; readonly statements: string };
}

function engineOf({ name, server, client, tables, initialise, options, lost }: Flavour): Engine {
  const socket = `${MEMORY}/${name}.sock`;
  const folders = `--user=mysql --datadir=${ON_ROOT}/${name} --innodb-log-group-home-dir=${ON_DATA}/${name}`;
  const sql = (statements: string): string => `${client} --no-defaults -u root -S ${socket} -BN -e "${statements}"`;
  const names = Object.keys(tables);
  const create = (table: string): string =>
    `DROP TABLE IF EXISTS oracle.${table}; CREATE TABLE oracle.${table}
      (client INT, number INT, pad VARCHAR(100), PRIMARY KEY (client, number)) ENGINE=${table}`;
  return {
    name,
    streams: names.map((table): Stream => ({
      name: `${name}.${table}`,
      driver: 'mysql',
      at: socket,
      table,
      held: tables[table] ?? false,
      contents: sql(`SELECT CONCAT_WS(' ', client, number) FROM oracle.${table}`),
    })),
    version: `${server} --version`,
    install: `id mysql >/dev/null 2>&1 || useradd --system mysql
      install -d -o mysql -g mysql ${ON_ROOT}/${name} ${ON_DATA}/${name}
      ${initialise} ${folders}`,
    start: startServer(
      `oracle-${name}`,
      `/usr/sbin/${server} --no-defaults ${folders} --socket=${socket} --pid-file=${MEMORY}/${name}.pid --skip-networking \\
        --innodb-buffer-pool-size=32M ${options}`,
      sql('SELECT 1'),
    ),
    reset: sql(
      `CREATE DATABASE IF NOT EXISTS oracle; CREATE USER IF NOT EXISTS oracle@localhost; GRANT ALL ON oracle.* TO oracle@localhost;
      ${names.map(create).join('; ')}`,
    ),
    // A table that somebody had open when it was cut is told of with a warning, and its status is OK all the same.
    check: `found=$(${sql(`CHECK TABLE ${names.map((table) => `oracle.${table}`).join(', ')} EXTENDED`)} | grep -v 'status.OK$')
      [ -z "$found" ] || { echo "$found"; exit 1; }`,
    lost: { writer: lost.writer, hook: `[ "$1" = thaw ] || ${sql(lost.statements)}` },
  };
}

export const mariadb = (): Engine =>
  engineOf({
    name: 'mariadb',
    server: 'mariadbd',
    client: 'mariadb',
    tables: { innodb: true, aria: true, myisam: true },
    initialise: `mariadb-install-db --no-defaults --skip-test-db --skip-name-resolve --auth-root-authentication-method=socket`,
    options: '--innodb-log-file-size=16M --key-buffer-size=8M --aria-pagecache-buffer-size=16M',
    lost: {
      writer: '50-mariadb',
      statements: 'BACKUP STAGE START; BACKUP STAGE FLUSH; BACKUP STAGE BLOCK_DDL; BACKUP STAGE BLOCK_COMMIT',
    },
  });

export const mysql = (): Engine =>
  engineOf({
    name: 'mysql',
    server: 'mysqld',
    client: 'mysql',
    tables: { innodb: false, myisam: true },
    initialise: 'mysqld --no-defaults --initialize-insecure',
    options: '--mysqlx=OFF --innodb-redo-log-capacity=32M --performance-schema=OFF',
    lost: { writer: '50-mysql', statements: 'LOCK INSTANCE FOR BACKUP; FLUSH TABLES WITH READ LOCK' },
  });
