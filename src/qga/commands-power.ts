// Commands that end or interrupt the guest. They have no reply on success, since the guest may be gone before it is sent.
// Errors are answered.
import * as v from 'valibot';
import { command, members, noArgs, nothing } from './command.js';

export const shutdownCommands = {
  /** `halt`, `powerdown` (the default) or `reboot`. QEMU's schema takes any text, so the handler refuses another. */
  'guest-shutdown': command({
    since: '0.15.0',
    args: members({ mode: v.optional(v.string()) }),
    returns: nothing,
    successResponse: false,
  }),
} as const;

export const suspendCommands = {
  'guest-suspend-disk': command({
    since: '1.1',
    args: noArgs,
    returns: nothing,
    successResponse: false,
  }),
  'guest-suspend-ram': command({
    since: '1.1',
    args: noArgs,
    returns: nothing,
    successResponse: false,
  }),
  'guest-suspend-hybrid': command({
    since: '1.1',
    args: noArgs,
    returns: nothing,
    successResponse: false,
  }),
} as const;
