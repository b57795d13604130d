// Where our answers differ from a recorded one's and shall. Exact on both sides: an entry that no longer differs, or
// differs in another way, fails. Commands we do not have yet are found by the test itself, and stop being accepted when
// they are there.
import { acceptedDifferences, type AcceptedDifference } from './accepted-differences.js';

export interface AcceptedTranscriptDifference extends AcceptedDifference {
  /** Release of the real agent; without it, both. */
  readonly release?: '7.2' | '10.0';
  /** The command it is about, for the table; without it, the wire protocol. */
  readonly command?: string;
}

export const acceptedTranscriptDifferences: readonly AcceptedTranscriptDifference[] = [...acceptedDifferences];
