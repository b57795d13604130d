// Mount table and disks of this machine, looked at anew only if something changed: walking sysfs takes many times as
// long as the whole freeze. What tells of a change: the text of mountinfo, and the kernel's count of uevents, which
// every disk, partition, loop file and device-mapper table that comes, goes or is changed moves on (kobject(7)).
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createDiskLookup, type DiskLookup } from './disks.js';
import { mountTable, parseMountinfo, type MountTable } from './mounts.js';

export interface MachineView {
  readonly table: MountTable;
  readonly lookup: DiskLookup;
}

interface Places {
  readonly mountinfoPath: string;
  readonly sysRoot: string;
  readonly udevRoot: string;
}

/** Gives a function that looks. It throws what open(2) does, and as parseMountinfo. */
export function machineViewer({ mountinfoPath, ...roots }: Places): () => MachineView {
  let last: { readonly mountinfo: string; readonly uevents: string; readonly view: MachineView } | undefined;
  return () => {
    // The count first: what changes while the disks are looked at makes the next look a new one.
    const uevents = ueventCount(roots.sysRoot);
    const mountinfo = readFileSync(mountinfoPath, 'utf8');
    if (last !== undefined && uevents !== undefined && last.uevents === uevents && last.mountinfo === mountinfo)
      return last.view;
    const table = mountTable(parseMountinfo(mountinfo));
    const view = { table, lookup: createDiskLookup(table, roots) };
    // udev writes its database after the event, and has this file until it is done.
    const isSettled = !existsSync(join(roots.udevRoot, 'queue'));
    last = uevents !== undefined && isSettled ? { mountinfo, uevents, view } : undefined;
    return view;
  };
}

/** Undefined where the kernel does not count: then nothing is remembered. */
function ueventCount(sysRoot: string): string | undefined {
  try {
    return readFileSync(join(sysRoot, 'kernel/uevent_seqnum'), 'utf8');
  } catch {
    return undefined;
  }
}
