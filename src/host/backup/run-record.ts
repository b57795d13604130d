// Puts the manifest of a run together, once its files are whole.
import { basename } from 'node:path';
import { defined } from '../../defined.js';
import type { CutFinding } from '../create/cut.js';
import { draftDisk } from '../create/point-draft.js';
import type { SetWorth } from '../guest/level.js';
import { LUKS_CIPHER } from '../images/luks-file.js';
import { KEY_ID } from '../images/luks-key.js';
import { diskFileName, type VmFolder } from '../repository/layout.js';
import type { FileSum } from '../repository/extents.js';
import { RUN_FORMAT, type RunDisk, type RunManifest } from '../repository/run-manifest.js';
import type { PointInTime } from '../sets/point-in-time.js';
import { shellWord } from '../../shell-word.js';
import { imageFormats } from '../vm/disk-choice.js';
import type { PlannedTarget } from './backup-targets.js';

export interface RunFacts {
  readonly folder: VmFolder;
  readonly repositoryId: string;
  readonly run: string;
  readonly id: string;
  readonly number: number;
  readonly createdAt: string;
  readonly point: PointInTime;
  readonly worth: SetWorth;
  readonly findings: readonly CutFinding[];
  readonly targets: readonly PlannedTarget[];
  /** In the order of the targets. */
  readonly copiedBytes: readonly number[];
  readonly sums: readonly FileSum[];
  readonly saved: RunManifest['saved'];
  readonly transfer: RunManifest['transfer'];
}

export function runManifest(facts: RunFacts): RunManifest {
  const { repositoryId, run, id, number, createdAt, point, saved, transfer } = facts;
  return {
    format: RUN_FORMAT,
    repository: repositoryId,
    run,
    id,
    number,
    createdAt,
    completedAt: new Date().toISOString(),
    ...point,
    disks: facts.targets.map((target, index) => diskOf(facts, target, index)),
    saved,
    transfer,
  };
}

function diskOf(facts: RunFacts, target: PlannedTarget, index: number): RunDisk {
  const { worth, sums, copiedBytes } = facts;
  const { disk, planned, checkpoint, key } = target;
  const { base, otherBitmaps } = planned;
  const name = basename(target.file);
  const encryption = key === undefined ? undefined : ({ format: 'luks', cipher: LUKS_CIPHER } as const);
  const sum = sums[index];
  const { level, evidence } = worth.disks[index] ?? { level: 'crash', evidence: [] };
  if (sum === undefined) throw new Error(`no sum of ${name}`);
  const format = imageFormats.find((each) => each === disk.format);
  if (format === undefined) throw new Error(`the format of ${name} is ${disk.format}`);
  return {
    ...draftDisk(disk),
    level,
    evidence: [...evidence],
    kind: base.kind,
    why: base.why,
    source: {
      file: disk.file,
      format,
      ...defined({ below: disk.backingFiles.length === 0 ? undefined : [...disk.backingFiles] }),
      inodes: [...planned.inodes],
    },
    file: { name, ...sum, ...defined({ encryption }) },
    ...(base.kind === 'full'
      ? {}
      : { base: { run: base.manifest.run, name: base.file.file.name, blake2b: base.file.file.blake2b } }),
    ...defined({ checkpoint }),
    copiedBytes: copiedBytes[index] ?? 0,
    otherBitmaps: [...otherBitmaps],
    restore: restoreLine(facts, target),
  };
}

/** For one who is in the folder of the repository, and has the key in a file. */
function restoreLine({ folder, run }: RunFacts, { file, planned, key }: PlannedTarget): string {
  const name = basename(file);
  const restored = shellWord(`/restored/${diskFileName(planned.name, false)}`);
  if (key === undefined) {
    return `qemu-img convert -p -f qcow2 -O qcow2 ${shellWord(`${folder.key}/${run}/${name}`)} ${restored}`;
  }
  // Headers name what lies below as seen from a run's folder.
  const words = `convert -p --object secret,id=${KEY_ID},file=/KEYFILE --image-opts -O qcow2`;
  const image = `driver=qcow2,file.driver=luks,file.key-secret=${KEY_ID},file.file.filename=${name}`;
  return `(cd ${shellWord(`${folder.key}/${run}`)} && qemu-img ${words} ${image} ${restored})`;
}
