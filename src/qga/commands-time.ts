// The guest's clock and zone. guest-get-time is in commands-guest.ts.
import * as v from 'valibot';
import { command, int, members, noArgs, nothing } from './command.js';

export const timeCommands = {
  /** Nanoseconds since 1970 (UTC); without, the system takes the hardware clock's time. */
  'guest-set-time': command({
    name: 'guest-set-time',
    since: '1.5',
    args: members({ time: v.optional(int) }),
    returns: nothing,
  }),
  /** `offset` in seconds east of Greenwich, `zone` its abbreviation, now. */
  'guest-get-timezone': command({
    name: 'guest-get-timezone',
    since: '2.10',
    policy: 'freeze-only',
    args: noArgs,
    returns: v.object({ zone: v.optional(v.string()), offset: int }),
  }),
} as const;
