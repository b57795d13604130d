// The guest's own account of a freeze, as a manifest holds it (consistency.ts): what its members mean to a user.
import * as v from 'valibot';
import { freezeReportSchema } from '../../../consistency.js';
import { described, is, maybe } from './meaning.js';

const report = freezeReportSchema.entries;
const filesystem = report.filesystems.item.entries;
const writer = report.writers.item.entries;
const phase = writer.phases.item.entries;

export const spanSchema = v.strictObject(
  described(filesystem.freeze.wrapped.entries, {
    startMs: 'begin, since the session began (milliseconds of the guest)',
    endMs: 'end, likewise',
  }),
);

const reasons = { what: 'what it is about', reason: 'why' };

const filesystemSchema = v.strictObject({
  ...described(filesystem, {
    mountpoint: 'where it is mounted',
    type: 'its type: `ext4`, `xfs`, ...',
    source: 'its source as the mount table has it: `/dev/vda1`',
    device: 'its device number, `MAJOR:MINOR`',
    disks: '',
    concerned: 'it is mounted read-write from a disk of the cut',
    held:
      'how it was held: `frozen`, `read-only`, `synced` (it cannot freeze, and nothing was written to it), ' +
      '`provider` (left to a provider in the guest), `none`',
    reason: 'why it is not held, or what went wrong',
    freezeErrno: 'errno of a freeze that failed',
    thawErrno: 'errno of a thaw that failed',
    sync: '',
    freeze: '',
    thaw: '',
  }),
  disks: is(
    v.array(
      v.strictObject(
        described(filesystem.disks.item.entries, {
          serial: 'serial number as the guest sees it',
          pciAddress: 'PCI address, `DDDD:BB:SS.F`',
          dev: 'name in the guest, `/dev/vda`',
        }),
      ),
    ),
    'disks that it lies on',
  ),
  sync: maybe(spanSchema, 'when it was synced'),
  freeze: maybe(spanSchema, 'when it was being frozen'),
  thaw: maybe(spanSchema, 'when it was being thawed'),
});

const writerSchema = v.strictObject({
  ...described(writer, {
    name: 'name of the writer',
    path: 'its program in the guest',
    kind: '`plain` (a hook), `described` (a hook with a description), `resident`',
    required: 'the freeze fails without it',
    rank: 'order: lower ones are held first and let go last',
    guarantee: 'what it promises of its data while it is held: `held`, `recoverable`, `artefact`',
    verdict: 'what became of it: `verified`, `claimed` (nothing proves it), `failed`, `not-applicable`',
    reason: 'which phase failed, and why',
    phases: '',
  }),
  phases: is(
    v.array(
      v.strictObject(
        described(phase, {
          phase: '`prepare`, `freeze`, `verify`, `thaw`, `abort` or `post`',
          startMs: 'begin, since the session began (milliseconds of the guest)',
          endMs: 'end, likewise',
          exitCode: 'exit code of the program',
          signal: 'signal that ended it',
          timedOut: 'it was ended by its time limit',
          text: 'its first line of standard error, else of standard output',
        }),
      ),
    ),
    'phases that ran, in their order',
  ),
});

export const reportSchema = v.strictObject({
  ...described(report, {
    session: 'id of the freeze session',
    requester: 'who asked for it',
    state: '`thawed`, or `frozen` as long as it is held',
    outcome:
      '`ok`, `incomplete` (without a writer), `unreleased` (a writer could not be let go), `failed`, `expired` (the lease ' +
      'ended), `broken` (it was thawed by somebody else)',
    level: 'what a cut meanwhile is worth by the guest',
    levelWithProvider: 'where filesystems were left to a provider in the guest: what everything else allows',
    evidence: 'why that is its level, one sentence per reason',
    error: 'why it failed',
    filesystems: '',
    writers: '',
    accompanying: '',
    artefacts: '',
    unsafeWriters: '',
    unreleased: '',
    skipped: '',
    steps: '',
    leaseMs: 'after this time the guest would have thawed itself (milliseconds)',
    pauseWindowMs: 'how long applications stood still (milliseconds)',
    frozenWindowMs: 'from the first filesystem frozen to the last one thawed (milliseconds)',
  }),
  filesystems: is(v.array(filesystemSchema), 'filesystems of the guest'),
  writers: is(v.array(writerSchema), 'writers of the guest'),
  accompanying: maybe(v.array(writerSchema), 'writers that speak for no application, and have no part in the level'),
  artefacts: maybe(
    v.array(
      v.strictObject(
        described(report.artefacts.wrapped.item.entries, {
          writer: 'name of the writer that left it',
          name: 'name of the file',
          text: 'its content, if that is text',
          base64: 'its content, if it is not',
          size: 'its size in bytes',
          truncated: 'it was too long: only its beginning is here',
        }),
      ),
    ),
    'files that writers left for whoever keeps the snapshot',
  ),
  unsafeWriters: maybe(
    v.array(v.strictObject(described(report.unsafeWriters.wrapped.item.entries, reasons))),
    'writers that could not be run safely',
  ),
  unreleased: maybe(
    v.array(v.strictObject(described(report.unreleased.wrapped.item.entries, reasons))),
    'writers that could not be let go',
  ),
  skipped: is(v.array(v.strictObject(described(report.skipped.item.entries, reasons))), 'what was left out'),
  steps: is(
    v.array(
      v.strictObject(
        described(report.steps.item.entries, {
          step: '`plan`, `prepare`, `hold`, `freeze`, `frozen`, `thaw` or `release`',
          startMs: 'begin, since the session began (milliseconds of the guest)',
          endMs: 'end, likewise',
        }),
      ),
    ),
    'steps of the session',
  ),
});
