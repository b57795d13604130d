// Fuzzes the freezer's request parser, in C under AddressSanitizer and UBSan: `make -C qga/freezer fuzz`, which makes its own
// inputs of the same kind (qga/freezer/test/fuzz.c).
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { peakBytes } from '../support/memory.js';
import type { Result } from './run.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const LIMIT_MS = 600_000;

export const FREEZER_PARSER = 'freezer-parser';

export async function runFreezerParser(count: number, seed: number): Promise<Result> {
  const words = ['-s', '-C', 'qga/freezer', `OUT=${root}build`, 'fuzz', `COUNT=${count}`, `SEED=${seed}`];
  const began = performance.now();
  const { stdout, stderr, failed } = await execa('make', words, { cwd: root, reject: false, timeout: LIMIT_MS });
  const seconds = (performance.now() - began) / 1000;
  const [, inputs, accepted, rejected] = /^(\d+) lines: (\d+) accepted, (\d+) rejected$/m.exec(stdout) ?? [];
  const numbers = { inputs: Number(inputs ?? 0), accepted: Number(accepted ?? 0), rejected: Number(rejected ?? 0) };
  const isDone = !failed && numbers.inputs === count;
  return {
    target: FREEZER_PARSER,
    ...numbers,
    recorded: 0,
    perSecond: Math.round(numbers.inputs / seconds),
    perCpuSecond: Math.round(numbers.inputs / seconds),
    grownBytes: 0,
    peakBytes: peakBytes(),
    ...(isDone ? {} : { failure: `make ${words.join(' ')}: ${stderr.slice(0, 4000)}${stdout.slice(0, 2000)}` }),
  };
}
