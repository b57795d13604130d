// bench -- start: what a call of the host tool costs before it does anything: `fsfreeze-bridge --version` against
// `node -e 0`, in turns.
import { execa } from 'execa';
import { HOST_TOOL } from '../../vm-images/demo/bridge.js';
import { compare, measure, type Row } from './table.js';

const ROUNDS = 20;
const LIMIT_MS = 100;

export async function start(): Promise<readonly Row[]> {
  const ours: number[] = [];
  const peer: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    ours.push(await run(HOST_TOOL, '--version'));
    peer.push(await run('-e', '0'));
  }
  const beyond = ours.map((ms, round) => ms - (peer[round] ?? NaN));
  return [
    compare('fsfreeze-bridge --version / node -e 0, ms', ours, peer, null),
    measure('fsfreeze-bridge --version beyond node -e 0, ms', beyond, LIMIT_MS),
  ];
}

async function run(...words: readonly string[]): Promise<number> {
  const startMs = performance.now();
  await execa(process.execPath, words);
  return performance.now() - startMs;
}
