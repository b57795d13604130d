// Our own commands: a freeze with a lease, a required level and a full report. The report is src/consistency.ts's
// shape as it is; only the arguments and the outermost members follow QAPI's spelling.
import * as v from 'valibot';
import {
  consistencyLevels,
  coordinatorStatusSchema,
  finite,
  freezeReportSchema,
  hungFilesystemSchema,
  unreleasedWriterSchema,
  untoldSchema,
  writerListingSchema,
} from '../consistency.js';
import { command, intFrom, members, noArgs } from './command.js';
import { tolerant } from './tolerant.js';

/** It is kept, and told to whoever comes next. */
const REQUESTER_BYTES = 256;
const leaseMs = intFrom(1, 'milliseconds');
const report = tolerant(freezeReportSchema);

export const bridgeCommands = {
  /** Steps 1-4 of the freeze path. An error's desc begins with the reason; the whole report is in bridge-status. */
  'bridge-freeze': command({
    since: 'fsfreeze-bridge 0.1',
    policy: 'freeze-only',
    args: members({
      session: v.optional(v.string()),
      requester: v.optional(
        v.pipe(v.string(), v.maxBytes(REQUESTER_BYTES, `expects at most ${REQUESTER_BYTES} bytes`)),
      ),
      'lease-ms': v.optional(leaseMs, 10_000),
      require: v.optional(v.picklist([...consistencyLevels, 'auto']), 'auto'),
      /** None named means all; an empty list is nobody's wish. */
      disks: v.optional(
        v.pipe(
          v.array(members({ serial: v.optional(v.string()), 'pci-address': v.optional(v.string()) })),
          v.minLength(1, 'expects 1 or more disks'),
        ),
      ),
      mountpoints: v.optional(v.array(v.string())),
    }),
    returns: v.object({ report }),
    order: 'abandonable',
  }),
  'bridge-renew': command({
    since: 'fsfreeze-bridge 0.1',
    policy: 'freeze-only',
    args: members({ session: v.string(), 'lease-ms': leaseMs }),
    returns: v.object({ 'remaining-ms': finite }),
    whenFrozen: true,
  }),
  /** For a session that already ended: its final report again, whose outcome tells how. */
  'bridge-thaw': command({
    since: 'fsfreeze-bridge 0.1',
    policy: 'freeze-only',
    args: members({ session: v.string() }),
    returns: v.object({ report }),
    whenFrozen: true,
  }),
  /** `report` is of the session under way, else of the last one. An older agent has not the lists. */
  'bridge-status': command({
    since: 'fsfreeze-bridge 0.1',
    policy: 'freeze-only',
    args: noArgs,
    returns: v.object({
      status: tolerant(coordinatorStatusSchema),
      report: v.optional(report),
      untold: v.optional(v.array(tolerant(untoldSchema))),
      unreleased: v.optional(v.array(tolerant(unreleasedWriterSchema))),
      hung: v.optional(v.array(tolerant(hungFilesystemSchema))),
    }),
    whenFrozen: true,
  }),
  'bridge-writers': command({
    since: 'fsfreeze-bridge 0.1',
    policy: 'freeze-only',
    args: noArgs,
    returns: v.object({ writers: v.array(tolerant(writerListingSchema)) }),
  }),
} as const;
