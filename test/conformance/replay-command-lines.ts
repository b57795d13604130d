// Our agent's command line beside a recorded one's, and the verdict on each.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { commandNames } from '../../src/qga/commands.js';
import { acceptedCommandLines, type AcceptedCommandLine } from './accepted-command-lines.js';
import { comparable, parseCommandLines, type Outcome, type RecordedCommandLine } from './command-line.js';
import type { Release } from './replay.js';

export function recordedCommandLines(release: Release): readonly RecordedCommandLine[] {
  const file = fileURLToPath(new URL(`../../qga/transcripts/${release}/command-line.txt`, import.meta.url));
  return parseCommandLines(readFileSync(file, 'utf8'));
}

export interface JudgedCommandLine {
  readonly name: string;
  readonly verdict: 'same' | 'accepted' | 'differs';
  readonly accepted?: AcceptedCommandLine;
  readonly problem?: string;
}

/** Without `ours`, there was no such command line. */
export function judgeCommandLine(
  release: Release,
  { name, outcome }: RecordedCommandLine,
  ours: Outcome | undefined,
): JudgedCommandLine {
  if (ours === undefined) return { name, verdict: 'differs', problem: 'it is no longer run' };
  const [real, own] = alike(release, comparable(outcome), comparable(ours));
  const accepted = acceptedCommandLines.find((entry) => entry.name === name && (entry.release ?? release) === release);
  const differs = real.join('\n') !== own.join('\n');
  const problem = `expected ${real.join(' / ')}, found ${own.join(' / ')}`;
  if (accepted === undefined) return differs ? { name, verdict: 'differs', problem } : { name, verdict: 'same' };
  if (!differs) return { name, verdict: 'differs', problem: 'a stale entry: it no longer differs' };
  if (accepted.ours.join('\n') !== own.join('\n')) return { name, verdict: 'differs', problem };
  return { name, verdict: 'accepted', accepted };
}

const known: ReadonlySet<string> = new Set(commandNames);

/** What differs in all of them, and is said once in the table: which commands there are, and what 7.2 has no key for. */
function alike(
  release: Release,
  real: readonly string[],
  ours: readonly string[],
): readonly [readonly string[], readonly string[]] {
  const listed = new Set(real);
  return [
    real.filter((line) => !line.startsWith('| guest-') || known.has(line.slice(2))),
    ours.filter((line) => {
      if (/^\| (guest|bridge)-/.test(line)) return listed.has(line);
      return !(release === '7.2' && line === '| allow-rpcs=');
    }),
  ];
}
