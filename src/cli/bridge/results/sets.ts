// Results of the commands that make and handle snapshot sets. A set is told as it is recorded (host/sets/manifest.ts).
import * as v from 'valibot';
import { consistencyLevelSchema, finite } from '../../../consistency.js';
import { ownerSchema } from '../../../host/sets/owner.js';
import { exitCodeSchema } from './failure.js';
import { recordedSchema } from './manifest.js';
import { bytes, described, flag, is, maybe, text, texts } from './meaning.js';

const { entries } = recordedSchema;
const levelNow = is(consistencyLevelSchema, 'what it is worth now');
const levelAtCut = is(consistencyLevelSchema, 'what it was worth at the cut');
const notes = texts('what a person has to know or to do now, in sentences');
const leftOut = v.array(v.strictObject({ what: text('a disk or folder'), reason: text('why') }));

export const createSchema = v.strictObject({
  exitCode: exitCodeSchema,
  satisfied: flag('the level asked for was reached'),
  notes: texts(
    'what the overlays lack, though the set is sound, in sentences: bitmaps of other programs that are in use',
  ),
  ...entries,
});

export const createCheckSchema = v.strictObject({
  exitCode: is(exitCodeSchema, 'the one that create would leave with, as far as that can be said'),
  vm: text('name of the VM'),
  status: text("QEMU's run state: `running`, `paused`, ..."),
  disks: is(
    v.array(
      v.strictObject({
        id: text("id of the guest's device"),
        file: text('image that would hold the cut'),
        format: text('format of the image'),
        below: texts('layers below it, nearest first'),
        dataFiles: texts('external data files of it and of the layers below'),
        encryption: maybe(v.string(), 'how it is encrypted: `luks`'),
      }),
    ),
    'disks that would be cut',
  ),
  leftOut: is(leftOut, 'what would be left out'),
  missing: is(leftOut, 'what of that the guest may write to, and nobody chose to leave out'),
  agent: maybe(
    v.strictObject({ kind: text('`bridge` (fsfreeze-agent) or `stock` (qemu-ga)'), version: text('its version') }),
    'the agent; absent if none would be asked',
  ),
  level: is(
    v.strictObject({
      asked: is(consistencyLevelSchema, 'the level asked for'),
      atMost: is(consistencyLevelSchema, 'the best that can be had'),
      why: text('why, in a sentence'),
    }),
    'levels',
  ),
  satisfied: flag('the level asked for may be reached'),
  rooms: is(
    v.array(
      v.strictObject({
        folder: text('folder for overlays'),
        free: bytes('what is free there'),
        needed: bytes('what is wanted there'),
      }),
    ),
    'space for the overlays',
  ),
});

export const listSchema = v.strictObject({
  vm: text('name of the VM'),
  sets: is(
    v.array(
      v.strictObject({
        set: text('name of the set'),
        state: entries.state,
        level: levelNow,
        levelAtCut,
        required: is(entries.required, 'the level asked for'),
        createdAt: text('when it was begun (ISO 8601, UTC)'),
        disks: is(finite, 'number of its disks'),
        timings: entries.timings,
        notes,
      }),
    ),
    'sets of the VM, the oldest first',
  ),
  unreadable: is(
    v.array(
      v.strictObject({
        set: text('name of the set'),
        reason: text('why it cannot be read'),
        empty: flag('only its name was taken: nothing was made'),
      }),
    ),
    'sets that cannot be read',
  ),
});

const layerName = v.picklist(['overlay', 'base']);
export const showSchema = v.strictObject({
  ...entries,
  level: levelNow,
  levelAtCut,
  disks: is(
    v.array(
      v.strictObject({
        ...entries.disks.item.entries,
        level: levelNow,
        holdsCut: flag('the base holds the state of the cut, whole'),
        isCutKnown: flag('false: that is not known for sure'),
        newest: maybe(
          v.strictObject({
            layer: is(layerName, 'which image of the set'),
            file: text('the image'),
            format: text('its format'),
          }),
          'what holds the newest state of the disk; absent if only a person can tell',
        ),
        inUse: maybe(layerName, 'what the running VM uses, `overlay` also for a newer one on it; absent if neither'),
        missing: texts('images of the disk that are not there'),
        notes: texts('why the cut is gone or not known to be there, and why the newest state is not known'),
      }),
    ),
    'disks of the set, as recorded and as they are now',
  ),
  notes,
});

const foreign = texts("files under the names of the set's overlays that are not known to be its own: left alone");
export const commitSchema = v.strictObject({ ...entries, foreign });

export const revertSchema = recordedSchema;

export const deleteSchema = v.strictObject({
  deleted: text('name of the set'),
  files: texts('overlays that were removed'),
  foreign,
});

export const startArgsSchema = v.strictObject({
  vm: text('name of the VM'),
  disks: is(
    v.array(
      v.strictObject({
        id: text("id of the guest's device"),
        serial: maybe(v.string(), 'serial number, as the guest sees it'),
        node: maybe(v.string(), "name of QEMU's block node at the cut, if it had one"),
        image: is(
          v.strictObject({
            file: text('the image'),
            format: text('its format'),
            name: maybe(v.string(), "QEMU's name of it (`json:{...}`), where the path does not say all"),
            keySecret: maybe(v.string(), 'id of the object in QEMU that holds its key'),
          }),
          'what the disk is to be started from',
        ),
        set: text('the snapshot set that says so'),
      }),
    ),
    'disks that a set holds',
  ),
});

const owner = v.strictObject(
  described(ownerSchema.entries, {
    pid: 'its id',
    startTicks: 'when it started, as the kernel counts',
    bootId: 'id of the boot',
    pidNamespace: 'its namespace of process ids: a container has one of its own',
  }),
);
const { vm, required, guest, versions } = entries;
export const copySchema = v.strictObject({
  target: text('the folder that was made'),
  format: is(v.literal(1), 'version of this record, manifest.json in the folder'),
  state: is(v.literal('complete'), 'the copy is whole'),
  set: text('name of the set'),
  id: text('different for every set, also of the same name'),
  vm,
  createdAt: text('when the set was begun (ISO 8601, UTC)'),
  copiedAt: text('when the copy was whole (ISO 8601, UTC)'),
  copiedBy: is(
    v.strictObject({ host: text('host on which it was made'), owner: is(owner, 'which process') }),
    'the process that made it',
  ),
  level: is(consistencyLevelSchema, 'what it is worth'),
  required: is(required, 'the level asked for'),
  evidence: texts('why that is its level, one sentence per reason'),
  leftOut: entries.leftOut,
  guest,
  verified: flag('each image was read again and compared with the state of the cut'),
  doubts: texts('why it is not known that what was copied is the state of the cut; empty if it is'),
  disks: is(
    v.array(
      v.strictObject({
        id: text("id of the guest's device"),
        serial: maybe(v.string(), 'serial number, as the guest sees it'),
        virtualSize: bytes('size of the disk'),
        level: is(consistencyLevelSchema, 'what was proved for this disk'),
        evidence: texts('why that is its level'),
        image: text('the file to be read, in the folder; it names those below it'),
        files: is(
          v.array(
            v.strictObject({
              file: text('name in the folder'),
              format: is(v.picklist(['qcow2', 'raw']), 'format'),
              backing: maybe(v.string(), 'the file in the folder that it names as its backing file'),
              size: bytes('size of the file'),
              sha256: text('SHA-256 of the file, in hexadecimal'),
            }),
          ),
          'files of the disk, the newest layer first',
        ),
        copiedFrom: texts('images that were read'),
        restore: text('command line that restores the disk beside its image'),
      }),
    ),
    'disks of the copy',
  ),
  versions,
  copiedWith: text('version of the tool that copied'),
});

export const pruneSchema = v.strictObject({
  dryRun: flag('nothing was changed: --dry-run'),
  merged: texts('sets that were merged into what they lie on, and forgotten'),
  forgotten: texts('sets that held nothing any more, and were forgotten'),
  kept: texts('sets that stay'),
});
