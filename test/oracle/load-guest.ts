// A guest with applications, and the load on them: made once, and loaded for as many cuts as it lasts.
import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { gunzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { Deadline } from '../../src/deadline.js';
import { DeadlineError } from '../../src/errors.js';
import { waitForAgent, type Guest } from '../../src/testing/index.js';
import { installWitness } from './cut.js';
import { MEMORY, type Engine } from './engine.js';
import { LEAST } from './judge.js';
import { readLog, type Log } from './log.js';

const LIMIT_MS = 300_000;
const LOG = `${MEMORY}/log`;
const ERRORS = `${MEMORY}/errors`;
const READY = LEAST + 20;

/** Brings the load and the Node that runs it into a guest, and starts the applications. */
export async function setUp(guest: Guest, engines: readonly Engine[]): Promise<void> {
  await guest.waitForSystem();
  const folder = await mkdtemp(path.join(tmpdir(), 'fsb-oracle-'));
  try {
    const load = path.join(folder, 'load.cjs');
    await build({
      entryPoints: [path.join(import.meta.dirname, 'load/main.ts')],
      bundle: true,
      platform: 'node',
      format: 'cjs',
      outfile: load,
      external: ['pg-native'],
      logLevel: 'error',
    });
    const node = path.join(folder, 'node');
    await copyFile(process.execPath, node);
    await guest.copyIn([node, load], MEMORY);
  } finally {
    await rm(folder, { recursive: true });
  }
  // Servers that run as others have their sockets here, too.
  await guest.exec(`chmod 777 ${MEMORY}`);
  await installWitness(guest);
  for (const { start } of engines) await guest.exec(start, { timeoutMs: LIMIT_MS });
  await waitForAgent(guest);
}

/** Empties the applications, loads them, has `act` done under the load, and gives the load's log. */
export async function underLoad(guest: Guest, engines: readonly Engine[], act: () => Promise<void>): Promise<Log> {
  for (const { reset } of engines) await guest.exec(reset, { timeoutMs: LIMIT_MS });
  const sources = engines.flatMap(({ streams }) =>
    streams.map(({ name, driver, at, table }) => ({ name, driver, at, table })),
  );
  await guest.exec(`: >${LOG}`);
  const command = `UV_USE_IO_URING=0 exec ${MEMORY}/node ${MEMORY}/load.cjs ${LOG} ${READY} "$(cat)" 2>${ERRORS}`;
  const load = await guest.start(command, { input: JSON.stringify(sources) });
  let isOver = false;
  try {
    await untilReady(guest);
    await act();
    await guest.exec(['/bin/kill', '-s', 'TERM', String(load.pid)]);
    const { exitCode } = await load.wait(LIMIT_MS);
    isOver = true;
    if (exitCode !== 0) throw new Error(`the load has failed: ${(await guest.exec(`tail -c 1000 ${ERRORS}`)).stdout}`);
  } finally {
    if (!isOver && !guest.isOver) await load.kill();
  }
  const packed = await guest.exec(`gzip -c ${LOG} | base64`, { timeoutMs: LIMIT_MS });
  return readLog(gunzipSync(Buffer.from(packed.stdout, 'base64')).toString());
}

async function untilReady(guest: Guest): Promise<void> {
  const deadline = new Deadline(LIMIT_MS);
  for (;;) {
    const { stdout } = await guest.exec(`grep -m 1 -e '^! ready' -e '^! failed' ${LOG} || :`);
    if (stdout.startsWith('! ready')) return;
    if (stdout !== '') throw new Error(`the load: ${stdout.trim()}`);
    if (deadline.passed) throw new DeadlineError(`${READY} operations of each source`, deadline.limitMs);
    await sleep(500);
  }
}
