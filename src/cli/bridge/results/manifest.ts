// A manifest, the record of one snapshot set (host/sets/manifest.ts): what its members mean to a user.
import * as v from 'valibot';
import { manifestSchema } from '../../../host/sets/manifest.js';
import { described, is, maybe, text } from './meaning.js';
import { reportSchema } from './report.js';

const { entries } = manifestSchema;
const completion = entries.completion.wrapped.entries;
const disk = entries.disks.item.entries;
const layer = disk.base.entries;
const fileState = layer.asCut.wrapped.entries;
const timings = entries.timings.entries;

export const fileStateSchema = v.strictObject({
  ...described(fileState, {
    device: 'its device number, in decimal',
    inode: 'its inode, in decimal',
    size: 'its size (bytes); 0 for a block device',
    mtimeMs: 'when it was last written to (milliseconds since 1970, UTC)',
    writes: '',
  }),
  writes: maybe(
    v.strictObject(
      described(fileState.writes.wrapped.entries, {
        boot: 'id of the boot',
        disk: 'number that the kernel gave the device (diskseq)',
        sectors: 'sectors written and discarded since that boot',
      }),
    ),
    'of a block device, what the kernel had counted',
  ),
});

export const layerSchema = v.strictObject({
  ...described(layer, {
    node: "name of QEMU's block node at the cut",
    file: 'the image',
    format: 'its format',
    name: "QEMU's name of it (`json:{...}`), where its path alone would give other bytes",
    asCut: '',
  }),
  asCut: maybe(fileStateSchema, 'the file right after the cut'),
});

export const manifestDiskSchema = v.strictObject({
  ...described(disk, {
    device: "name of the drive in QEMU, or libvirt's target",
    id: "id of the guest's device",
    qdev: "path of the device in QEMU's object tree",
    serial: 'serial number, as the guest sees it',
    pciAddress: 'PCI address, `DDDD:BB:SS.F`',
    virtualSize: 'size of the disk (bytes)',
    encryption: 'how its images are encrypted: `luks`',
    level: 'what was proved for this disk',
    evidence: 'why that is its level, one sentence per reason',
    base: '',
    overlay: '',
    below: '',
    dataFiles: 'external data files of the base and of the layers below it',
    dataFilesAsCut: '',
    overlayFolder: '',
    lost: 'why the base holds the cut no longer',
    merge: 'of a commit: the overlay is to be merged (`asked`), or its merge was begun (`begun`)',
    pivoting: 'QEMU was told to let the VM write to the base again',
    pivoted: 'the VM writes to the base again, which holds all of the overlay',
    pivotedAt: 'when that was (ISO 8601, UTC)',
    rebasing: 'a prune merges a layer below: the time of the base says nothing of the cut meanwhile',
    merged: 'the overlay is merged back and gone',
  }),
  base: is(layerSchema, 'holds the state of the cut'),
  overlay: is(layerSchema, 'takes the writes after the cut'),
  below: maybe(v.array(layerSchema), 'layers below the base, nearest first'),
  dataFilesAsCut: maybe(v.record(v.string(), fileStateSchema), 'these files right after the cut, by their names'),
  overlayFolder: maybe(
    v.strictObject({ device: text('its device number'), inode: text('its inode') }),
    'the folder of the overlay',
  ),
});

const marks = described(timings.marks.entries, {
  freezeRequestedMs: 'the guest was asked to freeze',
  freezeAnsweredMs: 'it answered',
  cutSentMs: 'the transaction was sent',
  cutAnsweredMs: 'it was answered',
  thawRequestedMs: 'the guest was asked to thaw',
  thawAnsweredMs: 'it answered',
});

export const recordedSchema = v.strictObject({
  ...described(entries, {
    format: 'version of the record',
    set: 'name of the set',
    id: 'different for every set, also of the same name',
    state:
      '`creating` (overlays are being made), `cutting` (the transaction may have been sent), `cut`, `committing`, `committed` (the set holds nothing ' +
      'any more), `reverting`, `deleting`, `failed` (nothing was cut)',
    pruning: 'with `committing`: it is prune that merges it',
    createdAt: 'when it was begun (ISO 8601, UTC)',
    changedAt: 'when this record was last changed',
    revertedAt: 'when it was last reverted to',
    pointVersion: 'version of what is recorded of the cut',
    vm: '',
    asked: 'the level asked for, as it was given',
    required: 'the level asked for, once it is known what `auto` meant for this guest',
    level: 'the lowest level of its disks: reached and proved',
    evidence: 'why that is its level, one sentence per reason',
    leftOut: '',
    timings: '',
    monitorLog: '',
    guest: '',
    completion: '',
    versions: '',
    disks: '',
    saved: '',
    error: 'what went wrong, for people',
  }),
  vm: is(
    v.strictObject(
      described(entries.vm.entries, {
        name: 'name, for people',
        qmp: 'monitor socket, or `libvirt:DOMAIN`',
        qga: 'socket of the agent, or `libvirt:DOMAIN`',
        qemuName: 'name that QEMU has of it',
        uuid: 'its UUID',
        status: "QEMU's run state when the set was begun",
      }),
    ),
    'the VM',
  ),
  leftOut: is(
    v.array(v.strictObject({ what: text('a disk or folder'), reason: text('why') })),
    'what of the VM is not in the set',
  ),
  timings: is(
    v.strictObject({
      ...described(timings, {
        steps: '',
        marks: '',
        cutMs: 'how long the transaction took (milliseconds)',
        pauseWindowMs: 'how long applications stood still (milliseconds)',
        frozenWindowMs: 'how long filesystems were frozen (milliseconds)',
      }),
      steps: is(
        v.array(
          v.strictObject(
            described(timings.steps.item.entries, {
              step: 'which step',
              startMs: 'begin, since the tool began (milliseconds)',
              endMs: 'end, likewise',
            }),
          ),
        ),
        'steps of the tool',
      ),
      marks: is(v.strictObject(marks), 'CLOCK_MONOTONIC of the host at some moments (milliseconds)'),
    }),
    'how long what took',
  ),
  monitorLog: is(
    v.array(
      v.strictObject(
        described(entries.monitorLog.item.entries, {
          command: 'name of the command',
          sentMs: 'CLOCK_MONOTONIC of the host (milliseconds)',
        }),
      ),
    ),
    'every command sent to the monitor until the disks were cut',
  ),
  guest: maybe(reportSchema, "the guest's own account; absent if no agent took part"),
  completion: maybe(
    v.strictObject({
      ...described(completion, {
        outcome: '`ok`: the set is recorded, and has the level asked for; `failed`',
        writers: '',
        error: 'why it is not known that they were told',
      }),
      writers: is(
        v.array(
          v.strictObject(
            described(completion.writers.item.entries, {
              name: 'name of the writer',
              path: 'its program in the guest',
              told: 'the outcome that it was told: `failed` where it or the session had failed',
              result: '`done`, `unsupported`, `failed`',
              reason: 'why it failed',
              durationMs: 'how long that took (milliseconds)',
            }),
          ),
        ),
        'writers with the phase `complete`',
      ),
    }),
    "what the guest's writers were told once the set was recorded; absent if nobody was told",
  ),
  versions: is(
    v.strictObject(
      described(entries.versions.entries, {
        tool: 'of fsfreeze-bridge',
        node: 'of Node',
        qemu: 'of QEMU',
        agent: 'of the agent',
      }),
    ),
    'versions',
  ),
  disks: is(v.array(manifestDiskSchema), 'disks of the set'),
  saved: maybe(
    v.array(
      v.strictObject(
        described(entries.saved.wrapped.item.entries, {
          name: "file in the set's folder",
          what: 'what it is, for people',
          from: 'the file that it is a copy of',
          size: 'size (bytes)',
          sha256: 'SHA-256, in hexadecimal',
          copied: '`before the cut` or `after the cut`: it is not part of it, as disks are',
          copiedAt: 'when (ISO 8601, UTC)',
        }),
      ),
    ),
    'what belongs to the VM beside its disks',
  ),
});
