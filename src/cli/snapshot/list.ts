// `fsfreeze-snapshot writers list`: what bridge-writers tells. If no agent answers, the folders are looked at, as the
// agent would.
import type { WriterListing } from '../../consistency.js';
import { BridgeError } from '../../errors.js';
import { findWriters, listing } from '../../freeze/writers/folders.js';
import { QgaClient } from '../../qga/client.js';
import { RemoteError } from '../../rpc/errors.js';
import type { GuestSettings } from './guest-settings.js';

const ASK_LIMIT_MS = 2_000;

export interface WriterList {
  /** Who said so. */
  readonly from: 'agent' | 'folders';
  /** Why the agent was not asked, or did not answer. */
  readonly note?: string;
  readonly writers: readonly WriterListing[];
}

/** Never throws what the agent's side does. */
export async function listWriters(settings: GuestSettings): Promise<WriterList> {
  const { agentSocket } = settings;
  if (agentSocket === undefined) return fromFolders(settings, 'no agent runs here');
  try {
    await using client = await QgaClient.connect(agentSocket, { timeoutMs: ASK_LIMIT_MS });
    const { writers } = await client.call('bridge-writers', {}, { timeoutMs: ASK_LIMIT_MS });
    return { from: 'agent', writers };
  } catch (error) {
    if (error instanceof BridgeError || error instanceof RemoteError) return fromFolders(settings, error.message);
    throw error;
  }
}

function fromFolders({ freeze }: GuestSettings, note: string): WriterList {
  const writers = findWriters(freeze.writerFolders, { owner: freeze.writerOwner }).map(listing);
  return { from: 'folders', note, writers };
}

/** Rows for people. */
export function describeList({ note, writers }: WriterList): string[] {
  return [
    ...writers.flatMap((writer) => [`${writer.name}  ${writer.path}`, ...howItRuns(writer)]),
    ...(writers.length === 0 ? ['there are no writers'] : []),
    ...(note === undefined ? [] : [`(the folders were looked at: ${note})`]),
  ];
}

function howItRuns(writer: WriterListing): string[] {
  const { covers = [], problem } = writer;
  if (problem !== undefined) return [`  NOT RUN: ${problem}`];
  return [`  ${whatItIs(writer)}`, ...(covers.length === 0 ? [] : [`  covers ${covers.join(' ')}`])];
}

/** In one line. */
export function whatItIs({ kind, required, rank, guarantee, accompanies, phases }: WriterListing): string {
  const worth = accompanies === true ? 'accompanies' : (guarantee ?? 'no guarantee stated');
  const words = [kind, required ? 'required' : 'optional', `rank ${rank}`, worth];
  return `${words.join(', ')}: ${phases.join(' ')}`;
}
