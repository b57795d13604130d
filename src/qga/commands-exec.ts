// Programs run in the guest. guest-exec answers as soon as the program runs; its end and its output are asked for.
import * as v from 'valibot';
import { alternate, command, int, members } from './command.js';

const captureModes = ['none', 'stdout', 'stderr', 'separated', 'merged'] as const;
export type CaptureMode = (typeof captureModes)[number];

/** The modes are of QEMU 8.0; before, true meant `separated` and false `none`. */
const captureOutput = alternate('GuestExecCaptureOutput', (input) =>
  typeof input === 'string' ? v.picklist(captureModes) : typeof input === 'boolean' ? v.boolean() : undefined,
);

export const execCommands = {
  /** Once it tells of the end, the program is forgotten. Output beyond 16 MiB of a stream is not kept. */
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
