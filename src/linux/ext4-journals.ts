// Finds the device that an ext4 keeps its journal on, where that is another than its own: neither mountinfo nor sysfs
// names it. The kernel tells two things. /proc/fs/jbd2 has a folder for each journal: `vda1-8` for one in inode 8 of
// the filesystem on vda1, `vdb` for one that is a device (fs/jbd2/journal.c, journal_init_dev() and
// journal_init_inode()). From 5.2 on /sys/fs/ext4/DEVICE/journal_task has the pid of the journal's thread, which is
// named after the journal.
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { BlockDevices } from './block-devices.js';
import { nodeNamed } from './block-tree.js';
import { namesIn, readValue } from './kernel-values.js';
import type { Filesystem, MountTable } from './mounts.js';

const TYPES = ['ext4', 'ext3'];

interface Journals {
  /** Kernel names of devices whose filesystem has its journal in itself. */
  readonly inside: ReadonlySet<string>;
  /** Kernel names of devices that are journals. */
  readonly devices: readonly string[];
}

export class Ext4Journals {
  readonly #sys: BlockDevices;
  readonly #roots: { readonly sysRoot: string; readonly procRoot: string };
  readonly #table: MountTable;
  #known: Journals | undefined;

  constructor(sys: BlockDevices, roots: { readonly sysRoot: string; readonly procRoot: string }, table: MountTable) {
    this.#sys = sys;
    this.#roots = roots;
    this.#table = table;
  }

  /**
   * Node in /dev of the device with the filesystem's journal, if that is another than its own; `unknown` if it has such
   * a device, or may have, and nobody says which.
   */
  of(filesystem: Filesystem): string | undefined {
    if (!TYPES.includes(filesystem.type)) return undefined;
    const journals = (this.#known ??= this.#read());
    const name = this.#nameOf(filesystem);
    if (journals.devices.length === 0 || name === undefined || journals.inside.has(name)) return undefined;
    const thread = this.#threadOf(name);
    if (thread === undefined) return this.#onlyOne(journals);
    const [device, ...others] = journals.devices.filter((one) => isNamedAfter(thread, one));
    if (device === undefined) return undefined;
    return others.length > 0 ? 'unknown' : nodeNamed(device);
  }

  /** Where the thread's name is not known: one journal, and one filesystem without any in itself, belong together. */
  #onlyOne({ inside, devices }: Journals): string {
    const without = this.#table.filesystems.filter(
      (one) => TYPES.includes(one.type) && !inside.has(this.#nameOf(one) ?? ''),
    );
    const [device, ...others] = devices;
    return device !== undefined && others.length === 0 && without.length === 1 ? nodeNamed(device) : 'unknown';
  }

  #read(): Journals {
    const journals = namesIn(join(this.#roots.procRoot, 'fs/jbd2'));
    // `dm-3` may be the device of that name, or inode 3 of a filesystem on `dm`: it is the device if there is one.
    const isDevice = (name: string): boolean => existsSync(join(this.#roots.sysRoot, 'class/block', name));
    const inside = journals.filter((name) => !isDevice(name)).map((name) => name.replace(/-\d+$/, ''));
    return { inside: new Set(inside), devices: journals.filter(isDevice) };
  }

  #nameOf({ device }: Filesystem): string | undefined {
    const path = this.#sys.byNumber(device);
    return path === undefined ? undefined : basename(path);
  }

  /** Name of the journal's thread; `<none>` if the filesystem has no journal. */
  #threadOf(name: string): string | undefined {
    const pid = readValue(join(this.#roots.sysRoot, 'fs/ext4', name, 'journal_task'));
    if (pid === undefined || !/^\d+$/.test(pid)) return pid;
    return readValue(join(this.#roots.procRoot, pid, 'comm'));
  }
}

// Before 5.17 the kernel cuts a thread's name at 15 bytes.
function isNamedAfter(thread: string, device: string): boolean {
  const name = `jbd2/${device}`;
  return thread === name || (thread.length === 15 && name.startsWith(thread));
}
