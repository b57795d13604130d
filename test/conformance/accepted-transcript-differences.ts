// Where our answers differ from a recorded one's and shall. Exact on both sides: an entry that no longer differs, or
// differs in another way, fails. Commands we do not have are found by the test itself, and stop being accepted when
// they are there.
import { acceptedDifferences, type AcceptedDifference } from './accepted-differences.js';

export interface AcceptedTranscriptDifference extends AcceptedDifference {
  /** Release of the real agent; without it, both. */
  readonly release?: '7.2' | '10.0';
}

const modesSince8 = "the capture modes, which came with QEMU 8, are there with 7.2's wording too";
const captureOutput: readonly AcceptedTranscriptDifference[] = ['"bad"', '""', '7', 'null', '[]', '{}'].map(
  (value) => ({
    exchange: `guest-exec capture-output ${value}`,
    release: '7.2',
    why: modesSince8,
    real: "Invalid parameter type for 'capture-output', expected: boolean",
    ours: value.startsWith('"')
      ? `Parameter 'capture-output' does not accept value '${value.slice(1, -1)}'`
      : "Invalid parameter type for 'capture-output', expected: GuestExecCaptureOutput",
  }),
);

const unknownPid: readonly AcceptedTranscriptDifference[] = ['0', '-1', '99999999', '9223372036854775807'].map(
  (pid) => ({
    exchange: `status of process ${pid}, which was never started`,
    release: '10.0',
    why: 'a slip in a format of QEMU 10: the number is meant',
    real: 'PID ld does not exist',
    ours: `PID ${pid} does not exist`,
  }),
);

const nobody: readonly AcceptedTranscriptDifference[] = ['a user who is not there', 'no name'].map((who) => ({
  exchange: `ssh keys of ${who}`,
  why: 'it says `Success` where it means that there is no such user',
  real: "': Success",
  ours: "': no such user",
}));

export const acceptedTranscriptDifferences: readonly AcceptedTranscriptDifference[] = [
  ...acceptedDifferences,
  ...captureOutput,
  ...unknownPid,
  ...nobody,
];
