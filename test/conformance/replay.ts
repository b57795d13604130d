// Our agent's answers to the recorded exchanges, beside what the real agent answered, and the verdict on each.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { commandNames } from '../../src/qga/commands.js';
import { acceptedTranscriptDifferences, type AcceptedTranscriptDifference } from './accepted-transcript-differences.js';
import { answers, recordedFamilies, type Subject } from './chamber-agents.js';
import type { Exchange } from './exchanges.js';
import { misfit, shapeOf } from './shape.js';
import { parseTranscript, trimAnswer, type Recorded, type Transcript } from './transcript.js';

export type Release = '7.2' | '10.0';

/** Our options for the wording of each real agent. */
export const optionsFor: Readonly<Record<Release, readonly string[]>> = {
  '7.2': ['--compat=7.2', '-c', '/etc/fsb.conf'],
  '10.0': ['--compat=10.2', '-c', '/etc/fsb.conf'],
};

const folder = fileURLToPath(new URL('../../qga/transcripts', import.meta.url));

export function transcriptsOf(release: Release): readonly Transcript[] {
  return readdirSync(join(folder, release))
    .sort()
    .filter((name) => name.endsWith('.txt') && !name.startsWith('command-line'))
    .map((name) => parseTranscript(readFileSync(join(folder, release, name), 'utf8')));
}

export type Verdict = 'same' | 'accepted' | 'not built' | 'differs';

export interface Replayed {
  readonly release: Release;
  readonly family: string;
  readonly recorded: Recorded;
  readonly ours: string;
  readonly verdict: Verdict;
  readonly accepted?: AcceptedTranscriptDifference;
  /** What is wrong, if the verdict is `differs`. */
  readonly problem?: string;
}

export async function replay(release: Release, subject: Subject): Promise<readonly Replayed[]> {
  const transcripts = transcriptsOf(release);
  const recorded = new Map(transcripts.map(({ family, exchanges }) => [family, exchanges] as const));
  const found: Replayed[] = [];
  for await (const { family, name, answer } of answers(subject, [...recorded])) {
    const exchange = recorded.get(family)?.find((candidate) => candidate.name === name);
    if (exchange === undefined) throw new Error(`no exchange '${name}' in ${family}`);
    const ours = trimAnswer(answer);
    found.push({ release, family, recorded: exchange, ours, ...judge(release, exchange, ours) });
  }
  return found;
}

type Judgement = Pick<Replayed, 'verdict' | 'accepted' | 'problem'>;

function judge(release: Release, recorded: Recorded, ours: string): Judgement {
  const accepted = acceptedTranscriptDifferences.find(
    (entry) => entry.exchange === recorded.name && (entry.release ?? release) === release,
  );
  const problem = difference(recorded, ours);
  const missing = missingCommand(recorded);
  if (missing !== undefined && problem !== undefined) {
    const expected = `The command ${missing} has not been found`;
    return ours.includes(expected) ? { verdict: 'not built' } : { verdict: 'differs', problem };
  }
  if (accepted !== undefined) {
    if (problem === undefined) return { verdict: 'differs', problem: 'a stale entry: it no longer differs' };
    const isAsAccepted =
      recorded.answer.includes(accepted.real) && ours === recorded.answer.replace(accepted.real, () => accepted.ours);
    return isAsAccepted ? { verdict: 'accepted', accepted } : { verdict: 'differs', problem };
  }
  return problem === undefined ? { verdict: 'same' } : { verdict: 'differs', problem };
}

function difference({ name, answer, isShape }: Recorded, ours: string): string | undefined {
  if (isShape) {
    const { apart = [] } = exchangeNamed(name) ?? {};
    return misfit(without(apart, answer), without(apart, shapeOf(ours)));
  }
  return ours === answer ? undefined : `expected ${shorten(answer)}, found ${shorten(ours)}`;
}

const exchangeNamed = (name: string): Exchange | undefined =>
  Object.values(recordedFamilies)
    .flat()
    .find((exchange) => exchange.name === name);

const without = (members: readonly string[], shape: string): string =>
  shape
    .split('\n')
    .filter((line) => !members.some((member) => line.includes(`.${member}: `) || line.includes(`.${member}?: `)))
    .join('\n');

const shorten = (text: string): string =>
  text.length > 400 ? `${text.slice(0, 400)}... (${text.length} bytes)` : text;

/** The command a request names, if our agent has none of that name. */
function missingCommand({ sends }: Recorded): string | undefined {
  const name = commandOf(sends);
  return name === undefined || commandNames.some((known) => known === name) ? undefined : name;
}

/** The one command a request names. */
export function commandOf(sends: readonly string[]): string | undefined {
  return /^\{"execute": "(guest-[a-z-]+)"/.exec(sends.join(''))?.[1];
}
