// Results of the commands that make and handle backups. A run is told as its manifest records it
// (host/repository/run-manifest.ts).
import * as v from 'valibot';
import { consistencyLevelSchema, finite } from '../../../consistency.js';
import { runManifestSchema } from '../../../host/repository/run-manifest.js';
import { exitCodeSchema } from './failure.js';
import { recordedSchema } from './manifest.js';
import { bytes, described, flag, is, maybe, text, texts } from './meaning.js';

const { entries } = runManifestSchema;
const disk = entries.disks.item.entries;
const diskFile = {
  ...disk.file.entries,
  encryption: v.optional(
    v.strictObject(
      described(disk.file.entries.encryption.wrapped.entries, { format: 'its format', cipher: 'its cipher' }),
    ),
  ),
};
const savedFile = entries.saved.item.entries;
const point = recordedSchema.entries;
const pointDisk = point.disks.item.entries;
const kind = is(v.picklist(['full', 'incremental']), '`full`: the whole disk; `incremental`: what changed');
const run = text('name of the run');
const vmName = text('name of the VM, as it was called when it was last backed up');

export const runDiskSchema = v.strictObject({
  device: pointDisk.device,
  id: pointDisk.id,
  qdev: pointDisk.qdev,
  serial: pointDisk.serial,
  pciAddress: pointDisk.pciAddress,
  virtualSize: pointDisk.virtualSize,
  encryption: pointDisk.encryption,
  level: pointDisk.level,
  evidence: pointDisk.evidence,
  kind,
  why: text('why it is a full one, or what it lies on'),
  source: is(
    v.strictObject({
      file: text('the image'),
      format: text('its format'),
      below: maybe(v.array(v.string()), 'the images that it lay on, the nearest first'),
      inodes: maybe(v.array(v.string()), 'inode number of each of them, its own first; empty for a device'),
    }),
    'the image that the VM wrote to at the cut',
  ),
  file: is(
    v.strictObject(
      described(diskFile, {
        name: "its name in the run's folder",
        size: 'its size (bytes)',
        encryption: 'the LUKS file that the image lies in; absent if it is not encrypted, and the file is the image',
        blake2b: 'BLAKE2b-512 of the sums of its extents, one after the other (hexadecimal)',
        extentBytes: 'size of an extent (bytes)',
        extents: 'BLAKE2b-512 of each extent (hexadecimal)',
      }),
    ),
    'the file that holds the disk',
  ),
  base: maybe(
    v.strictObject(
      described(disk.base.wrapped.entries, {
        run: 'the run',
        name: "the file in that run's folder",
        blake2b: 'its sum, as recorded there',
      }),
    ),
    'what the file lies on; absent for a full one',
  ),
  checkpoint: maybe(
    v.string(),
    "name of the VM's record of what it wrote since (a dirty bitmap, of a libvirt domain a checkpoint)",
  ),
  copiedBytes: bytes('what was to be copied: of an increment, what its checkpoint said'),
  otherBitmaps: texts('dirty bitmaps of other programs on the disk: left alone'),
  restore: text("command line that restores the disk, to be typed in the repository's folder"),
});

const runSchema = v.strictObject({
  ...described(
    {
      format: entries.format,
      repository: entries.repository,
      run: entries.run,
      id: entries.id,
      number: entries.number,
      createdAt: entries.createdAt,
      completedAt: entries.completedAt,
    },
    {
      format: 'version of the record',
      repository: 'id of the repository',
      run: 'name of the run: when it was begun, and its id',
      id: 'eight hexadecimal digits',
      number: 'runs of a VM are counted from 1',
      createdAt: 'when it was begun (ISO 8601, UTC)',
      completedAt: 'when all its files were whole',
    },
  ),
  pointVersion: point.pointVersion,
  vm: point.vm,
  asked: point.asked,
  required: point.required,
  level: point.level,
  evidence: point.evidence,
  leftOut: is(point.leftOut, 'what of the VM is not in the run'),
  timings: point.timings,
  monitorLog: point.monitorLog,
  guest: point.guest,
  versions: point.versions,
  disks: is(v.array(runDiskSchema), 'disks of the run'),
  saved: is(
    v.array(
      v.strictObject({
        ...point.saved.wrapped.item.entries,
        encryption: maybe(
          v.strictObject(
            described(savedFile.encryption.wrapped.entries, {
              format: 'its format',
              cipher: 'its cipher',
              size: 'size of the file that lies in it (bytes)',
            }),
          ),
          'the LUKS file that it lies in; absent if it is not encrypted',
        ),
      }),
    ),
    'what belongs to the VM beside its disks',
  ),
  transfer: is(
    v.strictObject(
      described(entries.transfer.entries, {
        copyMs: 'from the cut until all disks were copied (milliseconds)',
        hashMs: 'reading them again for their sums (milliseconds)',
      }),
    ),
    'how long the copying took',
  ),
});

const runEntries = runSchema.entries;

export const runResultSchema = v.strictObject({
  exitCode: exitCodeSchema,
  satisfied: flag('the level asked for was reached'),
  path: text("the run's folder"),
  troubles: texts('what did not go as it should, though the run is there, in sentences'),
  completion: point.completion,
  ...runEntries,
});

export const dryRunSchema = v.strictObject({
  exitCode: is(exitCodeSchema, 'the one that the backup would leave with, as far as that can be said'),
  vm: text('name of the VM'),
  disks: is(
    v.array(
      v.strictObject({
        id: text("id of the guest's device"),
        file: text('image that the VM writes to'),
        kind,
        why: text('why it would be a full one, or what it would lie on'),
        base: maybe(v.string(), 'the run that it would lie on'),
        bytes: bytes('what would be copied, at most'),
        isEncrypted: flag('it would be encrypted'),
        otherBitmaps: texts('dirty bitmaps of other programs'),
      }),
    ),
    'disks that would be backed up',
  ),
  leftOut: is(
    v.array(v.strictObject({ what: text('a disk or folder'), reason: text('why') })),
    'what would be left out',
  ),
  room: maybe(
    v.strictObject({ free: bytes('what is free'), needed: bytes('what is wanted') }),
    'space in the repository; absent if it is not there yet',
  ),
});

const verdict = v.strictObject({
  verifiedAt: text('when (ISO 8601, UTC)'),
  problems: texts('what was found, in sentences; empty if it is sound'),
  unchecked: texts('what was not looked into, for want of its key, in sentences'),
});

const bootSummary = v.strictObject({
  bootedAt: text('when it was begun (ISO 8601, UTC)'),
  problems: texts('what was wrong, in sentences; empty if it passed'),
});

const bootVerdict = v.strictObject({
  bootedAt: bootSummary.entries.bootedAt,
  accelerator: is(v.picklist(['kvm', 'tcg']), 'what the guest ran on when it was judged: `tcg` is emulation'),
  agentMs: maybe(finite, 'from its start until its agent answered (milliseconds); absent if it never did'),
  testMs: is(finite, 'how long the test took (milliseconds)'),
  checks: is(
    v.array(
      v.strictObject({
        what: text('what was looked at'),
        passed: flag('it is as it should be'),
        detail: text('what was found, for people'),
      }),
    ),
    'what was looked at once the agent had answered',
  ),
  problems: bootSummary.entries.problems,
  notes: texts('what was not looked at, and is no fault of the run, in sentences'),
});

export const backupListSchema = v.strictObject({
  repository: text('folder of the repository'),
  vms: is(
    v.array(
      v.strictObject({
        vm: vmName,
        key: text("the VM's folder in the repository: its UUID, if it has one"),
        runs: is(
          v.array(
            v.strictObject({
              run,
              number: is(finite, 'runs of a VM are counted from 1'),
              createdAt: text('when it was begun (ISO 8601, UTC)'),
              level: is(consistencyLevelSchema, 'what it is worth'),
              required: is(consistencyLevelSchema, 'the level asked for'),
              kind: is(v.picklist(['full', 'incremental']), '`full` if every disk is'),
              disks: is(finite, 'number of its disks'),
              isEncrypted: flag('a key is needed to read it'),
              bytes: bytes('size of its own files'),
              chain: is(finite, 'files of its longest chain'),
              verified: maybe(verdict, 'the last verification; absent if there was none'),
              booted: maybe(bootSummary, 'the last boot test; absent if there was none'),
              notes: texts('what a person has to know now, in sentences'),
            }),
          ),
          'runs, the oldest first',
        ),
        forgotten: texts('runs that nobody wants any more, but others lie on'),
        unreadable: is(
          v.array(v.strictObject({ run, reason: text('why it cannot be read') })),
          'runs that cannot be read',
        ),
        busy: maybe(v.string(), "who works on the VM's backups now"),
      }),
    ),
    'VMs',
  ),
});

export const backupShowSchema = v.strictObject({
  ...runEntries,
  path: text("the run's folder"),
  chains: is(v.array(v.array(v.string())), 'files of each disk, the newest first, the full one last'),
  verified: maybe(verdict, 'the last verification; absent if there was none'),
  booted: maybe(bootVerdict, 'the last boot test; absent if there was none'),
  dependents: texts('runs that lie on it'),
  notes: texts('what a person has to know now, in sentences'),
});

export const backupVerifySchema = v.strictObject({
  exitCode: exitCodeSchema,
  runs: is(
    v.array(
      v.strictObject({
        vm: vmName,
        run,
        verifiedAt: maybe(v.string(), 'when its files were looked at (ISO 8601, UTC); absent with `--no-sums`'),
        problems: verdict.entries.problems,
        unchecked: verdict.entries.unchecked,
        boot: maybe(
          v.strictObject({
            ...bootVerdict.entries,
            screenshot: maybe(v.string(), 'file with what was on its screen at the end'),
            console: maybe(v.string(), 'file with what its serial console said, at most the last MiB'),
          }),
          'its boot test; absent without `--boot`, and where its files are damaged',
        ),
      }),
    ),
    'runs that were verified',
  ),
});

export const backupRestoreSchema = v.strictObject({
  vm: vmName,
  run,
  createdAt: text('when the run was begun (ISO 8601, UTC)'),
  level: is(consistencyLevelSchema, 'what it is worth'),
  target: text('the folder that was made'),
  verified: flag('what was read was compared with its sums, and what was written with what was read'),
  disks: is(
    v.array(
      v.strictObject({
        id: text("id of the guest's device"),
        serial: maybe(v.string(), 'serial number, as the guest saw it'),
        file: text('the image'),
        format: text('its format'),
        virtualSize: bytes('size of the disk'),
        level: is(consistencyLevelSchema, 'what it is worth'),
      }),
    ),
    'disks that were restored',
  ),
});

export const backupStartSchema = v.strictObject({
  vm: vmName,
  run,
  createdAt: text('when the run was begun (ISO 8601, UTC)'),
  level: is(consistencyLevelSchema, 'what it is worth'),
  target: text('the folder that was made'),
  accelerator: is(v.picklist(['kvm', 'tcg']), 'what the guest runs on: `tcg` is emulation'),
  pid: is(finite, 'process of QEMU'),
  qmp: text("socket of QEMU's monitor"),
  agent: text("socket of the guest's agent"),
  console: text('socket of its serial console'),
  startMs: is(finite, 'from the call until the guest ran (milliseconds)'),
  agentMs: maybe(finite, 'from then until its agent answered; absent if none did'),
  streamMs: is(finite, 'how long the copying took'),
  disks: is(
    v.array(
      v.strictObject({
        id: text("id of the guest's device, as it was backed up"),
        serial: maybe(v.string(), 'serial number, as the guest sees it'),
        file: text('the image'),
        format: is(v.literal('qcow2'), 'its format'),
        virtualSize: bytes('size of the disk'),
        level: is(consistencyLevelSchema, 'what it was worth when it was started'),
      }),
    ),
    'disks of the VM, which need nothing of the repository any more',
  ),
  notes: texts('what a person has to know, in sentences'),
});

export const backupInPlaceSchema = v.strictObject({
  vm: vmName,
  run,
  createdAt: text('when the run was begun (ISO 8601, UTC)'),
  level: is(consistencyLevelSchema, 'what it is worth'),
  dryRun: flag('nothing was changed: --dry-run'),
  verified: flag('what was read was compared with its sums, and the images with what was read'),
  disks: is(
    v.array(
      v.strictObject({
        id: text("id of the guest's device"),
        serial: maybe(v.string(), 'serial number, as the guest saw it'),
        file: text("the VM's image"),
        bytes: bytes('clusters of 64 KiB that differed, and were written'),
      }),
    ),
    'disks that were restored',
  ),
});

export const backupForgetSchema = v.strictObject({
  dryRun: flag('nothing was changed: --dry-run'),
  vms: is(
    v.array(
      v.strictObject({
        vm: vmName,
        forgotten: texts('runs that were forgotten'),
        removed: texts('runs whose files are gone: those, and earlier ones'),
        needed: is(
          v.array(v.strictObject({ run, by: texts('runs that lie on it') })),
          'forgotten runs whose files stay for others',
        ),
      }),
    ),
    'VMs',
  ),
});

export const backupRecoverSchema = v.strictObject({
  repository: text('folder of the repository'),
  dryRun: flag('nothing was changed: --dry-run'),
  findings: is(
    v.array(
      v.strictObject({
        vm: vmName,
        found: text('what was found, in a sentence'),
        status: is(
          v.picklist(['done', 'planned', 'yours', 'busy']),
          '`done`, `planned` (would be done), `yours` (only you can decide it), `busy` (somebody is at it)',
        ),
        did: text('what was done about it, or has to be'),
        commands: maybe(v.array(v.string()), 'command lines to be typed'),
      }),
    ),
    'what was found',
  ),
  exitCode: exitCodeSchema,
});
