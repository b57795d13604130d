// Programs run in the guest. guest-exec answers as soon as the program runs; guest-exec-status asks for its end and output.
import * as v from 'valibot';
import { alternate, command, int, members } from './command.js';

const captureModes = ['none', 'stdout', 'stderr', 'separated', 'merged'] as const;
export type CaptureMode = (typeof captureModes)[number];

/** The modes are of QEMU 8.0; before, true meant `separated` and false `none`. */
const captureOutput = alternate('GuestExecCaptureOutput', (input) =>
  typeof input === 'string' ? v.picklist(captureModes) : typeof input === 'boolean' ? v.boolean() : undefined,
);

export const execCommands = {
  /** The program is forgotten as soon as its end was told. Of each stream the first 16 MiB are kept. */
  'guest-exec-status': command({
    since: '2.5',
    policy: 'full',
    args: members({ pid: int }),
    returns: v.object({
      exited: v.boolean(),
      exitcode: v.optional(int),
      signal: v.optional(int),
      'out-data': v.optional(v.string()),
      'err-data': v.optional(v.string()),
      'out-truncated': v.optional(v.boolean()),
      'err-truncated': v.optional(v.boolean()),
    }),
  }),
  /** `env` is the whole environment if given; `input-data` and the captured output are base64. */
  'guest-exec': command({
    since: '2.5',
    policy: 'full',
    args: members({
      path: v.string(),
      arg: v.optional(v.array(v.string())),
      env: v.optional(v.array(v.string())),
      'input-data': v.optional(v.string()),
      'capture-output': v.optional(captureOutput),
    }),
    returns: v.object({ pid: int }),
  }),
} as const;
