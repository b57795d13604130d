// Disks, and giving free blocks back to them. guest-get-fsinfo is in commands-guest.ts.
import * as v from 'valibot';
import { command, int, members, noArgs } from './command.js';
import { diskAddress } from './commands-guest.js';

export const storageCommands = {
  /** Trims every filesystem; one that fails has `error`, and the others go on. */
  'guest-fstrim': command({
    name: 'guest-fstrim',
    since: '1.2',
    args: members({ minimum: v.optional(int) }),
    returns: v.object({
      paths: v.array(
        v.object({
          path: v.string(),
          trimmed: v.optional(int),
          minimum: v.optional(int),
          error: v.optional(v.string()),
        }),
      ),
    }),
  }),
  /** Whole disks and partitions. `dependencies`: what it lies on; a partition lies on its disk. */
  'guest-get-disks': command({
    name: 'guest-get-disks',
    since: '5.2',
    policy: 'freeze-only',
    args: noArgs,
    returns: v.array(
      v.object({
        name: v.string(),
        partition: v.boolean(),
        dependencies: v.optional(v.array(v.string())),
        address: v.optional(diskAddress),
        alias: v.optional(v.string()),
      }),
    ),
  }),
} as const;
