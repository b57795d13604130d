// A client of each kind of application: an operation is one transaction, and it is done when it is acknowledged.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { Redis } from 'ioredis';
import mysql from 'mysql2/promise';
import pg from 'pg';
import type { Source } from './source.js';

/** Ends when the application has acknowledged operation `number`. */
type Act = (number: number) => Promise<void>;
type Connect = (source: Source, client: number) => Promise<Act>;

/** Longer than any hold: who waits is not to be told that it took too long. */
const PATIENCE_MS = 120_000;
const PAD = 'x'.repeat(80);

export const connect: Readonly<Record<Source['driver'], Connect>> = {
  async mysql({ at, table }, client) {
    const account = { user: 'oracle', database: 'oracle' };
    const connection = await mysql.createConnection({ socketPath: at, ...account, connectTimeout: PATIENCE_MS });
    return async (number) => {
      await connection.query(`INSERT INTO ${table} VALUES (?, ?, ?)`, [client, number, PAD]);
    };
  },
  async postgresql({ at, table }, client) {
    const account = { user: 'demo', password: 'demo', database: 'demo' };
    const connection = new pg.Client({ host: '127.0.0.1', port: Number(at), ...account });
    await connection.connect();
    return async (number) => {
      await connection.query(`INSERT INTO ${table} VALUES ($1, $2, $3)`, [client, number, PAD]);
    };
  },
  async redis({ at }, client) {
    const connection = new Redis(at, { retryStrategy: () => null, lazyConnect: true, connectTimeout: PATIENCE_MS });
    await connection.connect();
    return async (number) => {
      const added = await connection.sadd(`client-${client}`, number);
      if (added !== 1) throw new Error(`SADD: expected 1, found ${added}`);
    };
  },
  async sqlite({ at, table }, client) {
    const sqlite = spawn('sqlite3', ['-batch', '-bail', at], { stdio: ['pipe', 'pipe', 'inherit'] });
    const lines = createInterface(sqlite.stdout);
    // In a WAL, NORMAL is what SQLite's manual advises; it syncs at checkpoints alone.
    const level = table === 'wal' ? 'NORMAL' : 'FULL';
    sqlite.stdin.write(`.timeout ${PATIENCE_MS}\nPRAGMA synchronous=${level};\n`);
    const ended = once(sqlite, 'close').then(() => {
      throw new Error(`${at}: its sqlite3 has ended`);
    });
    ended.catch(() => undefined);
    await once(sqlite, 'spawn');
    return async (number) => {
      const answered = once(lines, 'line');
      sqlite.stdin.write(`INSERT INTO operations VALUES (${client}, ${number}, '${PAD}'); SELECT ${number};\n`);
      const [line] = (await Promise.race([answered, ended])) as [string];
      if (line !== String(number)) throw new Error(`${at}: expected ${number}, found ${line}`);
    };
  },
};
