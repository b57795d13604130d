// Ends this process when one input takes too long without ever giving the event loop a turn: nothing else could. The command
// that repeats the input is written first.
import { Worker } from 'node:worker_threads';

export interface Watchdog {
  /** An input begins; `repeat` is the command that runs it alone. */
  begin(repeat: string): void;
  close(): Promise<void>;
}

const WORKER_CODE = `
const { workerData, parentPort } = require('node:worker_threads');
const { writeSync } = require('node:fs');
const { shared, limitMs, pid } = workerData;
const count = new Int32Array(shared, 0, 2);
const words = new Uint8Array(shared, 8);
let seen = -1;
let since = Date.now();
setInterval(() => {
  const now = Atomics.load(count, 0);
  if (now !== seen) { seen = now; since = Date.now(); return; }
  if (Date.now() - since < limitMs) return;
  writeSync(2, 'hung for ' + limitMs + ' ms; alone: ' + Buffer.from(words.slice(0, Atomics.load(count, 1))).toString() + '\\n');
  process.kill(pid, 'SIGKILL');
}, 500);
`;

export function startWatchdog(limitMs: number): Watchdog {
  const shared = new SharedArrayBuffer(8 + 1024);
  const count = new Int32Array(shared, 0, 2);
  const words = new Uint8Array(shared, 8);
  const worker = new Worker(WORKER_CODE, { eval: true, workerData: { shared, limitMs, pid: process.pid } });
  worker.unref();
  return {
    begin(repeat) {
      const { written } = new TextEncoder().encodeInto(repeat, words);
      Atomics.store(count, 1, written);
      Atomics.add(count, 0, 1);
    },
    close: async () => {
      await worker.terminate();
    },
  };
}
