// Results of the commands that ask the guest and its agent: status, writers, thaw, wait.
import * as v from 'valibot';
import {
  coordinatorStates,
  finite,
  guarantees,
  writerKinds,
  writerListingSchema,
  writerPhases,
  writerVerdicts,
} from '../../../consistency.js';
import { problemSchema } from './failure.js';
import { flag, is, maybe, text, texts } from './meaning.js';
import { overlaySizeSchema } from './overlay-size.js';

const agentKind = is(v.picklist(['bridge', 'stock']), 'fsfreeze-agent (`bridge`), or qemu-ga (`stock`)');

const identitySchema = is(
  v.variant('kind', [
    v.strictObject({ kind: v.literal('uuid'), uuid: v.string() }),
    v.strictObject({ kind: v.literal('address'), address: v.string() }),
  ]),
  'which VM it is: its `uuid`; without one the `address` of its monitor, a path or `libvirt:NAME`',
);

const monitorSchema = v.strictObject({
  identity: identitySchema,
  qemu: text('version of QEMU'),
  status: text("QEMU's run state: `running`, `paused`, ..."),
  disks: is(
    v.array(
      v.strictObject({
        id: text("id of the guest's device"),
        node: text("QEMU's block node that a snapshot would go on"),
        file: text('image that the VM writes to'),
        format: text('format of the image'),
        readOnly: flag('the VM cannot write to it'),
        serial: maybe(v.string(), 'serial number, as the guest sees it'),
        pciAddress: maybe(v.string(), 'PCI address, `DDDD:BB:SS.F`'),
        set: maybe(v.string(), 'the snapshot set whose overlay the image is'),
        trouble: maybe(v.string(), 'why it cannot be cut as it is'),
      }),
    ),
    'disks of the VM',
  ),
  overlays: is(v.array(overlaySizeSchema), "overlays of the VM's sets"),
  startedWrong: texts('disks that run from an older image than their newest, in sentences'),
  jobs: is(
    v.array(
      v.strictObject({
        id: text('name of the job'),
        type: text("QEMU's type of it: `commit`, `mirror`, ..."),
        status: text("QEMU's status of it"),
      }),
    ),
    'jobs of QEMU',
  ),
});

const agentSchema = v.strictObject({
  kind: agentKind,
  version: text('version of the agent'),
  state: is(v.picklist(coordinatorStates), 'what the guest is at; `frozen` while it is held'),
  session: maybe(v.string(), 'the freeze session under way'),
  requester: maybe(v.string(), 'who asked for it'),
  remainingMs: maybe(finite, 'time until the guest thaws itself, in state `frozen` (milliseconds)'),
});

export const statusSchema = v.strictObject({
  vm: is(
    v.strictObject({
      name: text('name, for people'),
      identity: v.optional(identitySchema),
      qmp: text('where its disks are cut: monitor socket, or `libvirt:DOMAIN`'),
      qga: maybe(v.string(), 'where its agent is asked: socket, or `libvirt:DOMAIN`'),
      overlayDir: maybe(v.string(), 'folder for overlays, if one is configured'),
    }),
    'the VM, as it was named',
  ),
  monitor: is(v.union([monitorSchema, problemSchema]), 'what QEMU tells; `error` alone if it does not answer'),
  agent: is(v.union([agentSchema, problemSchema]), 'what the agent tells; `error` alone if it does not answer'),
});

const { entries: listing } = writerListingSchema;
const last = listing.last.wrapped.entries;
export const writersSchema = v.strictObject({
  writers: is(
    v.array(
      v.strictObject({
        name: is(listing.name, 'name of the writer'),
        path: is(listing.path, 'its program in the guest'),
        kind: is(v.picklist(writerKinds), 'a plain hook, one with a description, or a resident program'),
        required: is(listing.required, 'a freeze fails without it'),
        rank: is(listing.rank, 'order: lower ones are held first and let go last'),
        phases: is(v.array(v.picklist(writerPhases)), 'phases that it takes part in'),
        guarantee: maybe(v.picklist(guarantees), 'what it promises of its data while it is held'),
        accompanies: maybe(listing.accompanies.wrapped, 'it speaks for no application, and has no part in the level'),
        lingers: maybe(listing.lingers.wrapped, 'seconds for which its hold may outlive its process'),
        covers: maybe(v.array(v.string()), 'paths that its data lies on; absent if it takes part in every freeze'),
        last: maybe(
          v.strictObject({
            session: is(last.session, 'id of the freeze session'),
            verdict: is(v.picklist(writerVerdicts), 'what became of it'),
            reason: maybe(last.reason.wrapped, 'which phase failed, and why'),
            durationMs: is(last.durationMs, 'all its phases together (milliseconds)'),
          }),
          'the last session that it took part in, as far as the agent remembers',
        ),
        problem: maybe(listing.problem.wrapped, 'why it will not be run'),
      }),
    ),
    'the writers in the guest',
  ),
});

export const thawSchema = v.strictObject({
  thawed: is(v.literal(true), 'the thaw is confirmed'),
  wasFrozen: flag('something was held'),
});

export const waitSchema = v.strictObject({ kind: agentKind, version: text('version of the agent') });
