// bench -- start: what a call of the host tool costs before it does anything: `fsfreeze-bridge --version` against
// `node -e 0`, in turns; as npm installs it, and as the one executable of the Debian package.
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { HOST_TOOL } from '../../vm-images/demo/bridge.js';
import { compare, measure, type Row } from './table.js';

const ROUNDS = 20;
const LIMIT_MS = 100;
const EXECUTABLE = fileURLToPath(new URL('../../build/fsfreeze-bridge', import.meta.url));

export async function start(): Promise<readonly Row[]> {
  const ours: number[] = [];
  const packaged: number[] = [];
  const peer: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    ours.push(await run(process.execPath, HOST_TOOL, '--version'));
    packaged.push(await run(EXECUTABLE, '--version'));
    peer.push(await run(process.execPath, '-e', '0'));
  }
  const beyond = (all: readonly number[]): number[] => all.map((ms, round) => ms - (peer[round] ?? NaN));
  return [
    compare('fsfreeze-bridge --version / node -e 0, ms', ours, peer, null),
    measure('fsfreeze-bridge --version beyond node -e 0, ms', beyond(ours), LIMIT_MS),
    compare('the same, as one executable, ms', packaged, peer, null),
    measure('the same, as one executable, beyond node -e 0, ms', beyond(packaged), LIMIT_MS),
  ];
}

async function run(program: string, ...words: readonly string[]): Promise<number> {
  const startMs = performance.now();
  await execa(program, words);
  return performance.now() - startMs;
}
