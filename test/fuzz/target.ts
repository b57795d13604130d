// The shape of what is fuzzed: a target takes one input after another. `run` throws if the program under test did what it must not
// (an error that is none of its own, an answer that is wrong, a next good request that is not answered).
import { setImmediate as turn } from 'node:timers/promises';
import { BridgeError } from '../../src/errors.js';
import { RemoteError } from '../../src/rpc/errors.js';
import type { Input } from './input.js';

/** Whether the input was taken for something good. */
export type Verdict = 'accepted' | 'rejected';

export interface Runner extends AsyncDisposable {
  run(input: Input): Promise<Verdict>;
}

export interface Target {
  readonly name: string;
  /** Inputs are mutated from these. */
  readonly pieces: () => readonly Buffer[];
  readonly start: () => Promise<Runner> | Runner;
}

export class Finding extends Error {}

export function check(holds: boolean, what: string | (() => string)): asserts holds {
  if (!holds) throw new Finding(typeof what === 'string' ? what : what());
}

/** Turns of the event loop until it holds. In memory nothing takes longer than a few; a Finding after many. */
export async function untilTrue(what: string, holds: () => boolean, turns = 2000): Promise<void> {
  for (let left = turns; !holds(); left--) {
    if (left === 0) throw new Finding(`not within ${turns} turns of the event loop: ${what}`);
    await turn();
  }
}

export async function turns(count: number): Promise<void> {
  for (let left = count; left > 0; left--) await turn();
}

export type Settled<T> = { readonly value: T } | { readonly error: unknown };

/** The promise, and how it ended as soon as it has. */
export function watch<T>(work: Promise<T>): { readonly settled: () => Settled<T> | undefined } {
  let settled: Settled<T> | undefined;
  work.then(
    (value) => {
      settled = { value };
    },
    (error: unknown) => {
      settled = { error };
    },
  );
  return { settled: () => settled };
}

/** The error must be one that callers are told to expect, with a text of bearable length. */
export function checkOwnError(error: unknown): void {
  check(
    error instanceof BridgeError || error instanceof RemoteError,
    () => `an error that is none of ours: ${show(error)}`,
  );
  check(error.message.length < 20_000, () => `an error text of ${error.message.length} characters`);
}

export const show = (error: unknown): string =>
  error instanceof Error ? (error.stack ?? error.message) : String(error);
