// Mount table and disks of this machine, looked at anew only if something changed: walking sysfs takes many times as
// long as the whole freeze. What tells of a change: the text of mountinfo, the kernel's count of uevents, which every
// disk, partition, loop file and device-mapper table that comes, goes or is changed moves on (kobject(7)), and the
// superblocks that drivers list, whatever namespace they are mounted in.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createDiskLookup, type DiskLookup } from './disks.js';
import { hasUnlistedTypes, listedSuperblocks, mountedUnseen, mountsOfProcesses } from './elsewhere.js';
import { mountTable, parseMountinfo, type MountElsewhere, type MountTable } from './mounts.js';

export interface MachineView {
  readonly table: MountTable;
  readonly lookup: DiskLookup;
}

interface Places {
  readonly mountinfoPath: string;
  readonly sysRoot: string;
  readonly udevRoot: string;
  /** Where other mount namespaces are looked for; without it they are not. */
  readonly procRoot?: string | undefined;
}

/**
 * Throws what open(2) does, and as parseMountinfo. `quick`: does not ask every process for its mount table, unless
 * something has changed: for a second look, while applications wait.
 */
export type LookAtMachine = (how?: { readonly quick?: boolean }) => MachineView;

interface Look {
  readonly mountinfo: string;
  readonly uevents: string;
  readonly superblocks: string;
  readonly ofProcesses: readonly MountElsewhere[];
  readonly view: MachineView;
}

export function machineViewer({ mountinfoPath, procRoot, ...roots }: Places): LookAtMachine {
  let last: Look | undefined;
  return ({ quick = false } = {}) => {
    // The count first: what changes while the disks are looked at makes the next look a new one.
    const uevents = ueventCount(roots.sysRoot);
    const listed = procRoot === undefined ? [] : listedSuperblocks(roots.sysRoot);
    const superblocks = listed.join();
    const mountinfo = readFileSync(mountinfoPath, 'utf8');
    const known =
      last?.uevents === uevents && last?.mountinfo === mountinfo && last.superblocks === superblocks ? last : undefined;
    if (known !== undefined && (quick || procRoot === undefined || !mayHaveCome(known, procRoot, roots.sysRoot)))
      return known.view;
    const own = known?.view.table ?? mountTable(parseMountinfo(mountinfo));
    const ofProcesses = procRoot === undefined ? [] : mountsOfProcesses(own, procRoot);
    if (known !== undefined && namesOf(ofProcesses) === namesOf(known.ofProcesses)) return known.view;
    const lookup = createDiskLookup(own, roots);
    const unseen =
      procRoot === undefined
        ? []
        : mountedUnseen(listed, own, ofProcesses, lookup, { procRoot, sysRoot: roots.sysRoot });
    const view = { table: { ...own, elsewhere: [...ofProcesses, ...unseen] }, lookup };
    // udev writes its database after the event, and has this file until it is done.
    const isSettled = !existsSync(join(roots.udevRoot, 'queue'));
    last = uevents !== undefined && isSettled ? { mountinfo, uevents, superblocks, ofProcesses, view } : undefined;
    return view;
  };
}

// To ask every process takes longer than all the rest. What was nowhere else cannot have come without being listed.
function mayHaveCome({ view }: Look, procRoot: string, sysRoot: string): boolean {
  return view.table.elsewhere.length > 0 || hasUnlistedTypes({ procRoot, sysRoot });
}

// Who is in the namespace may change while its mounts do not.
function namesOf(elsewhere: readonly MountElsewhere[]): string {
  return elsewhere.map(({ filesystem: f }) => [f.device, f.type, f.source, f.readOnly].join(' ')).join('\n');
}

/** Undefined where the kernel does not count: then nothing is remembered. */
function ueventCount(sysRoot: string): string | undefined {
  try {
    return readFileSync(join(sysRoot, 'kernel/uevent_seqnum'), 'utf8');
  } catch {
    return undefined;
  }
}
