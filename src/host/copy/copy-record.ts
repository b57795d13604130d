// Writes what lies beside the images of a copy: manifest.json, from which somebody who has nothing but the folder
// learns what it is worth, whether it is whole, and how to restore it by hand.
import { join } from 'node:path';
import { defined } from '../../defined.js';
import { PACKAGE_VERSION } from '../../version.js';
import type { Manifest, ManifestDisk } from '../sets/manifest.js';
import { shellWord } from '../../shell-word.js';
import type { CopiedFile, CopyFormat } from './copy-disk.js';
import type { Copier } from './copy-draft.js';

export interface CopiedDisk {
  readonly disk: ManifestDisk;
  readonly sources: readonly string[];
  readonly files: readonly CopiedFile[];
}

export interface CopyRecord {
  readonly format: 1;
  readonly state: 'complete';
  readonly set: string;
  readonly id: string;
  readonly vm: Manifest['vm'];
  /** The time of the cut. */
  readonly createdAt: string;
  readonly copiedAt: string;
  readonly copiedBy: Copier;
  readonly level: Manifest['level'];
  readonly required: Manifest['required'];
  readonly evidence: readonly string[];
  readonly leftOut: Manifest['leftOut'];
  readonly guest?: Manifest['guest'];
  /** Each image was read again and compared with the state of the cut. */
  readonly verified: boolean;
  /** Why it is not known that what was copied is the state of the cut; empty if it is. */
  readonly doubts: readonly string[];
  readonly disks: readonly {
    readonly id: string;
    readonly serial?: string;
    readonly virtualSize: number;
    readonly level: Manifest['level'];
    readonly evidence: readonly string[];
    /** The file to be read; those below it are found by it. */
    readonly image: string;
    readonly files: readonly CopiedFile[];
    readonly copiedFrom: readonly string[];
    /** A command line. */
    readonly restore: string;
  }[];
  readonly versions: Manifest['versions'];
  readonly copiedWith: string;
}

interface CopyFacts {
  readonly target: string;
  readonly format: CopyFormat;
  readonly flatten: boolean;
  readonly verified: boolean;
  readonly copiedBy: Copier;
  readonly doubts: readonly string[];
}

export function recordOf(manifest: Manifest, copied: readonly CopiedDisk[], facts: CopyFacts): CopyRecord {
  const { set, id, vm, createdAt, level, required, evidence, leftOut, guest, versions } = manifest;
  return {
    format: 1,
    state: 'complete',
    set,
    id,
    vm,
    createdAt,
    copiedAt: new Date().toISOString(),
    copiedBy: facts.copiedBy,
    level,
    required,
    evidence,
    leftOut,
    ...defined({ guest }),
    verified: facts.verified,
    doubts: facts.doubts,
    disks: copied.map(({ disk, sources, files }) => {
      const image = files[0]?.file ?? '';
      return {
        id: disk.id,
        ...defined({ serial: disk.serial }),
        virtualSize: disk.virtualSize,
        level: disk.level,
        evidence: disk.evidence,
        image,
        files,
        copiedFrom: sources,
        restore: restoreLine(disk, join(facts.target, image), facts.format),
      };
    }),
    versions,
    copiedWith: PACKAGE_VERSION,
  };
}

// The restored image lies beside the one it came from, and never over it: somebody may still need that.
function restoreLine({ base }: ManifestDisk, image: string, format: CopyFormat): string {
  const isDevice = base.file.startsWith('/dev/');
  const options = isDevice ? ['-n', '-O', 'raw'] : ['-O', base.format];
  const to = isDevice ? 'DEVICE' : shellWord(`${base.file}.restored`);
  return ['qemu-img', 'convert', '-p', '-f', format, ...options, shellWord(image), to].join(' ');
}
