// What ends or interrupts the guest. None of these has a success reply: the guest may be gone before it is sent. Errors
// are answered.
import * as v from 'valibot';
import { command, members, noArgs, nothing } from './command.js';

export const powerCommands = {
  /** `halt`, `powerdown` (the default) or `reboot`; a text in QEMU's schema, so another is an error of the handler. */
  'guest-shutdown': command({
    name: 'guest-shutdown',
    since: '0.15.0',
    args: members({ mode: v.optional(v.string()) }),
    returns: nothing,
    successResponse: false,
  }),
  'guest-suspend-disk': command({
    name: 'guest-suspend-disk',
    since: '1.1',
    args: noArgs,
    returns: nothing,
    successResponse: false,
  }),
  'guest-suspend-ram': command({
    name: 'guest-suspend-ram',
    since: '1.1',
    args: noArgs,
    returns: nothing,
    successResponse: false,
  }),
  'guest-suspend-hybrid': command({
    name: 'guest-suspend-hybrid',
    since: '1.1',
    args: noArgs,
    returns: nothing,
    successResponse: false,
  }),
} as const;
