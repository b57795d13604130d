// Users: who is logged in, passwords, SSH keys.
import * as v from 'valibot';
import { command, members, noArgs, nothing } from './command.js';

const username = v.string();
const keys = v.array(v.string());

export const accountCommands = {
  /** Each user once, with the earliest login: seconds since 1970 (UTC), with a fraction. */
  'guest-get-users': command({
    name: 'guest-get-users',
    since: '2.10',
    args: noArgs,
    returns: v.array(v.object({ user: v.string(), 'login-time': v.number(), domain: v.optional(v.string()) })),
  }),
  /** `password` is base64, of a hash if `crypted`. */
  'guest-set-user-password': command({
    name: 'guest-set-user-password',
    since: '2.3',
    policy: 'full',
    args: members({ username, password: v.string(), crypted: v.boolean() }),
    returns: nothing,
  }),
  'guest-ssh-get-authorized-keys': command({
    name: 'guest-ssh-get-authorized-keys',
    since: '5.2',
    args: members({ username }),
    returns: v.object({ keys }),
  }),
  /** Adds to what there is; `reset` replaces it. */
  'guest-ssh-add-authorized-keys': command({
    name: 'guest-ssh-add-authorized-keys',
    since: '5.2',
    policy: 'full',
    args: members({ username, keys, reset: v.optional(v.boolean(), false) }),
    returns: nothing,
  }),
  'guest-ssh-remove-authorized-keys': command({
    name: 'guest-ssh-remove-authorized-keys',
    since: '5.2',
    policy: 'full',
    args: members({ username, keys }),
    returns: nothing,
  }),
} as const;
