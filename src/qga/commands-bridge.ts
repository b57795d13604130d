// Our own commands: a freeze with a lease, a required level and a full report. The report is src/consistency.ts's
// shape as it is; only the arguments and the outermost members follow QAPI's spelling.
import * as v from 'valibot';
import {
  completeOutcomes,
  completionSchema,
  consistencyLevels,
  coordinatorStatusSchema,
  finite,
  freezeReportSchema,
  hungFilesystemSchema,
  keptListingSchema,
  unreleasedWriterSchema,
  untoldSchema,
  writerListingSchema,
} from '../consistency.js';
import { command, intFrom, members, noArgs, nothing } from './command.js';
import { tolerant } from './tolerant.js';

/** The agent keeps the requester's name, and tells it to whoever comes next. */
const REQUESTER_BYTES = 256;
/** No provider suspends a device for longer; the thaw waits no longer for one that died. */
const SECTION_LONGEST_MS = 60_000;
const leaseMs = intFrom(1, 'milliseconds');
const report = tolerant(freezeReportSchema);

export const bridgeCommands = {
  /** Steps 1-4 of the freeze path (src/freeze/). An error's desc begins with the reason; bridge-status has the whole report. */
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
      /** Without it all disks are meant. An empty list is refused. */
      disks: v.optional(
        v.pipe(
          v.array(members({ serial: v.optional(v.string()), 'pci-address': v.optional(v.string()) })),
          v.minLength(1, 'expects 1 or more disks'),
        ),
      ),
      mountpoints: v.optional(v.array(v.string())),
      /** Filesystems whose provider freezes by itself: held by writers alone, and judged by the requester. */
      leave: v.optional(v.array(v.string())),
      'ends-with-channel': v.optional(v.boolean(), false),
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
  /** A session that has already ended gives its final report again: the outcome tells how it ended. */
  'bridge-thaw': command({
    since: 'fsfreeze-bridge 0.1',
    policy: 'freeze-only',
    args: members({ session: v.string() }),
    returns: v.object({ report }),
    whenFrozen: true,
  }),
  /** For a requester that is root in the guest: its provider is inside a device-mapper section, or left it. */
  'bridge-critical': command({
    since: 'fsfreeze-bridge 0.1',
    policy: 'freeze-only',
    args: members({
      session: v.string(),
      on: v.boolean(),
      'bound-ms': v.optional(
        v.pipe(
          intFrom(1, 'milliseconds'),
          v.check((ms) => ms <= SECTION_LONGEST_MS, `expects at most ${SECTION_LONGEST_MS} milliseconds`),
        ),
        30_000,
      ),
      /** With its end, and no device suspended, the section is over, too: a requester that died tells nothing. */
      worker: v.optional(members({ pid: intFrom(1, 'process id'), 'start-time': v.string() })),
    }),
    returns: nothing,
    whenFrozen: true,
  }),
  /** `report` is that of the session under way, else of the last one. Agents of older versions have no lists. */
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
      kept: v.optional(v.array(tolerant(keptListingSchema))),
    }),
    whenFrozen: true,
  }),
  /**
   * Not while the guest is frozen: it starts writers. Whoever asks again gets the same answer. It may take as long as
   * `post` and `complete` of the writers together, so that a requester may give up waiting.
   */
  'bridge-complete': command({
    since: 'fsfreeze-bridge 0.1',
    policy: 'freeze-only',
    args: members({ session: v.string(), outcome: v.picklist(completeOutcomes) }),
    returns: v.object({ completion: tolerant(completionSchema) }),
    order: 'abandonable',
  }),
  'bridge-writers': command({
    since: 'fsfreeze-bridge 0.1',
    policy: 'freeze-only',
    args: noArgs,
    returns: v.object({ writers: v.array(tolerant(writerListingSchema)) }),
  }),
} as const;
