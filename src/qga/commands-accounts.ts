// Passwords and SSH keys of the guest's users. Who is logged in is in commands-guest.ts.
import * as v from 'valibot';
import { command, members, nothing } from './command.js';

const username = v.string();
const keys = v.array(v.string());

export const passwordCommands = {
  /** `password` is base64, of a hash if `crypted`. */
  'guest-set-user-password': command({
    since: '2.3',
    policy: 'full',
    args: members({ username, password: v.string(), crypted: v.boolean() }),
    returns: nothing,
  }),
} as const;

export const keyCommands = {
  'guest-ssh-get-authorized-keys': command({
    since: '5.2',
    args: members({ username }),
    returns: v.object({ keys }),
  }),
  /** Adds to what there is; `reset` replaces it. */
  'guest-ssh-add-authorized-keys': command({
    since: '5.2',
    policy: 'full',
    args: members({ username, keys, reset: v.optional(v.boolean(), false) }),
    returns: nothing,
  }),
  'guest-ssh-remove-authorized-keys': command({
    since: '5.2',
    policy: 'full',
    args: members({ username, keys }),
    returns: nothing,
  }),
} as const;
