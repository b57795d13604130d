// The freeze commands of the real agent. QEMU's schema says what they mean. The handler (src/agent/handlers/fsfreeze.ts) adds
// a lease, freezes each superblock once, and tells by one error that a lease has expired.
import * as v from 'valibot';
import { command, int, members, noArgs } from './command.js';

export const fsfreezeCommands = {
  'guest-fsfreeze-status': command({
    since: '0.15.0',
    policy: 'freeze-only',
    args: noArgs,
    returns: v.picklist(['thawed', 'frozen']),
    whenFrozen: true,
  }),
  /** Returns the number of filesystems frozen. */
  'guest-fsfreeze-freeze': command({
    since: '0.15.0',
    policy: 'freeze-only',
    args: noArgs,
    returns: int,
    order: 'abandonable',
  }),
  /** `mountpoints` are compared exactly; without them, all. Returns the number of filesystems frozen. */
  'guest-fsfreeze-freeze-list': command({
    since: '2.2',
    policy: 'freeze-only',
    args: members({ mountpoints: v.optional(v.array(v.string())) }),
    returns: int,
    order: 'abandonable',
  }),
  /** Returns the number of filesystems thawed. */
  'guest-fsfreeze-thaw': command({
    since: '0.15.0',
    policy: 'freeze-only',
    args: noArgs,
    returns: int,
    whenFrozen: true,
  }),
} as const;
