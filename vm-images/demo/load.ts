// The load of the demo: clients on the host that commit small transactions without a pause and remember each one, when
// it was sent and when its commit was acknowledged. Times are this host's CLOCK_MONOTONIC, as in the manifest.
import pg from 'pg';
import { monotonicMs } from '../../src/linux/clock.js';

export interface Transaction {
  readonly id: number;
  readonly sentMs: number;
  /** Undefined if its connection was lost before the answer: then it may or may not have happened. */
  readonly acknowledgedMs: number | undefined;
}

export interface Load {
  /** All transactions so far. */
  readonly transactions: readonly Transaction[];
  /** Lets what is under way finish and closes the connections. Throws what a client met other than our stop. */
  stop(): Promise<void>;
}

const CONNECT_LIMIT_MS = 10_000;

/** Opens one connection to the demo's database; the caller ends it. */
async function connect(port: number): Promise<pg.Client> {
  const client = new pg.Client({
    host: '127.0.0.1',
    port,
    user: 'demo',
    database: 'demo',
    connectionTimeoutMillis: CONNECT_LIMIT_MS,
  });
  // Without a listener a lost connection would end the process; the query under way fails anyway.
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

/** Creates the table on the first start and begins to commit on `clients` connections. */
export async function startLoad(port: number, clients: number): Promise<Load> {
  const transactions: Transaction[] = [];
  let running = true;
  let nextId = 0;
  const first = await connect(port);
  try {
    await first.query('CREATE TABLE IF NOT EXISTS ledger (id bigint PRIMARY KEY, note text NOT NULL)');
    const { rows } = await first.query<{ next: string }>('SELECT coalesce(max(id) + 1, 0) AS next FROM ledger');
    nextId = Number(rows[0]?.next);
  } finally {
    await first.end();
  }

  const commitUntilStopped = async (): Promise<void> => {
    const client = await connect(port);
    try {
      while (running) {
        const id = nextId++;
        const sentMs = monotonicMs();
        let acknowledgedMs: number | undefined;
        try {
          await client.query('INSERT INTO ledger VALUES ($1, $2)', [id, `transaction ${id}`]);
          acknowledgedMs = monotonicMs();
        } finally {
          transactions.push({ id, sentMs, acknowledgedMs });
        }
      }
    } finally {
      await client.end();
    }
  };
  const workers = Promise.allSettled(Array.from({ length: clients }, commitUntilStopped));
  return {
    transactions,
    async stop() {
      running = false;
      const failures = (await workers).flatMap((result) =>
        result.status === 'rejected' ? [result.reason as unknown] : [],
      );
      if (failures.length > 0) throw new AggregateError(failures, 'the load failed');
    },
  };
}

/** The ids a database holds. */
export async function committedIds(port: number): Promise<ReadonlySet<number>> {
  const client = await connect(port);
  try {
    const { rows } = await client.query<{ id: string }>('SELECT id FROM ledger');
    return new Set(rows.map((row) => Number(row.id)));
  } finally {
    await client.end();
  }
}
