// The guest's clock. Its zone is in commands-guest.ts.
import * as v from 'valibot';
import { command, int, members, noArgs, nothing } from './command.js';

export const timeCommands = {
  /** Nanoseconds since 1970 (UTC): beyond 2^53, so a bigint. */
  'guest-get-time': command({
    since: '1.5',
    policy: 'freeze-only',
    args: noArgs,
    returns: int,
  }),
  /** `time`: nanoseconds since 1970 (UTC). Without it the system takes the hardware clock's time. */
  'guest-set-time': command({
    since: '1.5',
    args: members({ time: v.optional(int) }),
    returns: nothing,
  }),
} as const;
