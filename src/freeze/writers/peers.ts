// Chooses how a writer is spoken with, by its kind. Sessions know only the interface (peer.ts).
import type { Writer } from './folders.js';
import { LeftPeer } from './left-peer.js';
import type { OutputWatch } from './output.js';
import type { Peer } from './peer.js';
import { toStart, type PhaseContext } from './phase.js';
import { ProgramPeer } from './program-peer.js';
import { ResidentPeer } from './resident-peer.js';

export interface PeerContext extends PhaseContext {
  /**
   * The session is that of an agent which died: whether the process of the writer at this path, one that lived through
   * the session, is still there.
   */
  readonly leftRuns?: (path: string) => boolean;
}

/** `onLost`: called when its hold is lost, or it fails, while nobody asks it. */
export function peerFor(
  writer: Writer,
  context: PeerContext,
  watch: OutputWatch,
  onLost: (reason: string) => void,
): Peer {
  if (writer.kind !== 'resident') return new ProgramPeer(writer, context, watch, onLost);
  const lingersMs = (writer.description?.lingers ?? 0) * 1000;
  const { leftRuns } = context;
  if (leftRuns !== undefined) return new LeftPeer(() => leftRuns(writer.path), lingersMs);
  return new ResidentPeer(() => {
    const what = toStart(writer, 'resident', context);
    return 'fault' in what ? what : { ...what, args: ['resident'], watch, onLost };
  }, lingersMs);
}
