// Files of the guest, by handle: a 64-bit number from 1000, valid until it is closed or the agent ends. Limits, and what the
// policy allows to write, are in src/agent/handlers/files.ts.
import * as v from 'valibot';
import { JsonFloat } from '../wire/value.js';
import { alternate, command, int, members, nothing } from './command.js';

/** QGASeek: the numbers of QEMU's own enumeration, and their names. */
const whence = alternate('GuestFileWhence', (input) =>
  typeof input === 'string'
    ? v.picklist(['set', 'cur', 'end'])
    : typeof input === 'number' || typeof input === 'bigint' || input instanceof JsonFloat
      ? int
      : undefined,
);

export const fileCommands = {
  /** `mode` as fopen(3)'s; `r` if not given. Other modes need guest-file-write to be allowed. */
  'guest-file-open': command({
    since: '0.15.0',
    args: members({ path: v.string(), mode: v.optional(v.string(), 'r') }),
    returns: int,
  }),
  'guest-file-close': command({
    since: '0.15.0',
    args: members({ handle: int }),
    returns: nothing,
  }),
  /** At most 48 MiB at once. */
  'guest-file-read': command({
    since: '0.15.0',
    args: members({ handle: int, count: v.optional(int) }),
    returns: v.object({ count: int, 'buf-b64': v.string(), eof: v.boolean() }),
  }),
  'guest-file-write': command({
    since: '0.15.0',
    policy: 'full',
    args: members({ handle: int, 'buf-b64': v.string(), count: v.optional(int) }),
    returns: v.object({ count: int, eof: v.boolean() }),
  }),
  'guest-file-seek': command({
    since: '0.15.0',
    args: members({ handle: int, offset: int, whence }),
    returns: v.object({ position: int, eof: v.boolean() }),
  }),
  'guest-file-flush': command({
    since: '0.15.0',
    args: members({ handle: int }),
    returns: nothing,
  }),
} as const;
