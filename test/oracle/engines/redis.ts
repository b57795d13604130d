// Redis and Valkey: a server with an AOF on the data disk, and one with snapshots alone on the root disk.
import { MEMORY, ON_DATA, ON_ROOT, startServer, type Engine, type Stream } from '../engine.js';
import { CLIENTS } from '../load/source.js';

const SERVERS = {
  aof: { folder: ON_DATA, options: "--appendonly yes --appendfsync everysec --save ''" },
  rdb: { folder: ON_ROOT, options: "--appendonly no --save '3600 1'" },
} as const;

function engineOf(name: string): Engine {
  const server = `/usr/local/bin/${name}-server`;
  const kinds = Object.entries(SERVERS);
  const socket = (kind: string): string => `${MEMORY}/${name}-${kind}.sock`;
  const folder = (kind: string, parent: string): string => `${parent}/${name}-${kind}`;
  const clients = Array.from({ length: CLIENTS }, (_, client) => client).join(' ');
  return {
    name,
    streams: kinds.map(([kind]): Stream => ({
      name: `${name}.${kind}`,
      driver: 'redis',
      at: socket(kind),
      table: '',
      held: true,
      contents: `for client in ${clients}; do ${name}-cli -s ${socket(kind)} SMEMBERS client-$client | sed -n "s/^./$client &/p"; done`,
    })),
    version: `${server} --version`,
    // The checker is the server under another name.
    install: `ln -sf /usr/bin/${name}-check-rdb ${server}
      mkdir -p ${kinds.map(([kind, { folder: parent }]) => folder(kind, parent)).join(' ')}`,
    start: kinds
      .map(([kind, { folder: parent, options }]) =>
        startServer(
          `oracle-${name}-${kind}`,
          `${server} --port 0 --unixsocket ${socket(kind)} --dir ${folder(kind, parent)} ${options}`,
          `[ "$(${name}-cli -s ${socket(kind)} PING)" = PONG ]`,
        ),
      )
      .join('\n'),
    reset: kinds.map(([kind]) => `${name}-cli -s ${socket(kind)} FLUSHALL`).join(' && '),
    checkFiles: `said=$(${name}-check-aof ${ON_DATA}/${name}-aof/appendonlydir/appendonly.aof.manifest 2>&1 &&
      ${name}-check-rdb ${ON_ROOT}/${name}-rdb/dump.rdb 2>&1) || { echo "$said" | tail -n 4; exit 1; }`,
    check: `for kind in aof rdb; do ${name}-cli -s ${MEMORY}/${name}-$kind.sock INFO persistence | grep -q '^loading:0' || { echo "$kind still loads"; exit 1; }; done`,
    // Of a fixed length: it is over before all is frozen.
    lost: {
      writer: '50-redis',
      hook: `[ "$1" = thaw ] || ${kinds.map(([kind]) => `${name}-cli -s ${socket(kind)} CLIENT PAUSE 50 WRITE`).join(' && ')}`,
    },
  };
}

export const redis = (): Engine => engineOf('redis');
export const valkey = (): Engine => engineOf('valkey');
