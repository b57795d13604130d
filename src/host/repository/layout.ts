// Names what lies where in a repository of backups. A VM's folder is called by what the VM is (vm/identity.ts), a run's by
// its run; a file of a run that is published never changes again.
//
//   repository.json                     which repository it is
//   locks/                              who works on the backups of which VM
//   VM/vm.json                          how the VM was called when it was last backed up
//   VM/RUN/manifest.json                a point in time: its files, what they are worth, how to restore them by hand
//   VM/RUN/DISK.qcow2                   a disk: the whole of it, or what changed since the run that its header names
//   VM/RUN/DISK.qcow2.luks              the same, encrypted: the image lies in a LUKS file
//   VM/RUN/...                          what the VM keeps beside its disks
//   VM/.draft-RUN/                      a run in the making
//   VM/.gone-RUN/                       a run that is being removed
//   VM/verified/RUN.json                what the last verification of a run found
//   VM/booted/RUN.json, .png, .log      what the last boot test of a run found, and what was seen of it
//   VM/forgotten/RUN                    nobody wants the run any more, but others may lie on it
import { join } from 'node:path';
import { runPattern } from '../images/run-file.js';

export const MANIFEST = 'manifest.json';
const VM_FILE = 'vm.json';
export const LOCKS = 'locks';

const DRAFT = '.draft-';
const GONE = '.gone-';

/** A verdict, a screenshot, and the log of the serial console. */
export const bootEndings = ['json', 'png', 'log'] as const;

/** The folder of a VM in a repository, and what lies in it. */
export class VmFolder {
  readonly path: string;
  readonly key: string;

  constructor(repository: string, key: string) {
    this.key = key;
    this.path = join(repository, key);
  }

  get record(): string {
    return join(this.path, VM_FILE);
  }

  run(run: string): string {
    return join(this.path, run);
  }

  draft(run: string): string {
    return join(this.path, `${DRAFT}${run}`);
  }

  gone(run: string): string {
    return join(this.path, `${GONE}${run}`);
  }

  verified(run: string): string {
    return join(this.path, 'verified', `${run}.json`);
  }

  booted(run: string, ending: (typeof bootEndings)[number]): string {
    return join(this.path, 'booted', `${run}.${ending}`);
  }

  forgotten(run = ''): string {
    return join(this.path, 'forgotten', run);
  }
}

const IMAGE = '.qcow2';
const ENCRYPTED = '.luks';

/** The file of a disk in a run's folder. */
export function diskFileName(stem: string, isEncrypted: boolean): string {
  return `${stem}${IMAGE}${isEncrypted ? ENCRYPTED : ''}`;
}

/** What a disk is called by its file. */
export function diskStem(name: string): string {
  const image = name.endsWith(ENCRYPTED) ? name.slice(0, -ENCRYPTED.length) : name;
  return image.endsWith(IMAGE) ? image.slice(0, -IMAGE.length) : image;
}

export function runName(begun: Date, id: string): string {
  return `${begun.toISOString().replace(/[-:]|\.\d+/g, '')}-${id}`;
}

/** The run whose draft the folder is; undefined if it is none. */
export function draftRun(folder: string): string | undefined {
  return runAfter(DRAFT, folder);
}

export function goneRun(folder: string): string | undefined {
  return runAfter(GONE, folder);
}

function runAfter(prefix: string, folder: string): string | undefined {
  const run = folder.startsWith(prefix) ? folder.slice(prefix.length) : '';
  return runPattern.test(run) ? run : undefined;
}
