// Commands that tell what the guest is, and who uses it. Members that QEMU marks `*` are optional.
import * as v from 'valibot';
import { command, int, noArgs } from './command.js';

const text = v.optional(v.string());

export const guestCommands = {
  'guest-get-host-name': command({
    since: '2.10',
    policy: 'freeze-only',
    args: noArgs,
    returns: v.object({ 'host-name': v.string() }),
  }),
  /** Each user once, with the earliest login: seconds since 1970 (UTC), with a fraction. */
  'guest-get-users': command({
    since: '2.10',
    args: noArgs,
    returns: v.array(v.object({ user: v.string(), 'login-time': v.number(), domain: v.optional(v.string()) })),
  }),
  /** `offset` in seconds east of Greenwich, `zone` its abbreviation, now. */
  'guest-get-timezone': command({
    since: '2.10',
    policy: 'freeze-only',
    args: noArgs,
    returns: v.object({ zone: v.optional(v.string()), offset: int }),
  }),
  'guest-get-osinfo': command({
    since: '2.10',
    policy: 'freeze-only',
    args: noArgs,
    returns: v.object({
      'kernel-release': text,
      'kernel-version': text,
      machine: text,
      id: text,
      name: text,
      'pretty-name': text,
      version: text,
      'version-id': text,
      variant: text,
      'variant-id': text,
    }),
  }),
} as const;
