// The host tool, run in this process from its source: its exit code, what it printed, and what its JSON holds.
import { runBridge } from '../../src/cli/bridge/program.js';
import type { Manifest } from '../../src/host/sets/manifest.js';
import { readResult } from './bridge-result.js';

export interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** The last line of stdout; empty without `--json`. */
  readonly json: Record<string, unknown>;
  /** The same, for commands that answer with a manifest. */
  readonly manifest: Manifest;
  /** `none` if it told of no error. */
  readonly error: { readonly code: string; readonly message: string };
}

/** Runs it with these words as its whole command line. `signal` stops it as a signal to the process would. */
export async function runTool(
  words: readonly string[],
  signal: AbortSignal = new AbortController().signal,
): Promise<Run> {
  const out: string[] = [];
  const err: string[] = [];
  const streams = { stdout: (text: string) => void out.push(text), stderr: (text: string) => void err.push(text) };
  const code = await runBridge(words, streams, signal);
  const stdout = out.join('');
  const json = readResult(words, stdout) ?? {};
  const error = (json['error'] ?? { code: 'none', message: 'none' }) as Run['error'];
  return { code, stdout, stderr: err.join(''), json, manifest: json as unknown as Manifest, error };
}
