// Looks at mount table and disks of this machine, anew only if something changed: walking sysfs takes many times as
// long as the whole freeze. Three things tell of a change: the text of mountinfo; the kernel's count of uevents, which
// moves on when a disk, partition, loop file or device-mapper table comes, goes or changes (kobject(7)); and the
// superblocks that drivers list, whatever namespace they are mounted in. A process has one viewer: what one caller asks
// for, all remember.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createDiskLookup, type DiskLookup } from './disks.js';
import { hasUnlisted, listedSuperblocks, mountsOfProcesses, unknownSuperblocks, unseen } from './other-namespaces.js';
import { holdsBlocks, skipReason, superblockKey } from './filesystem-types.js';
import { readText } from './kernel-values.js';
import { mountsOfNewDevices, parseMountinfo, readInTurns } from './mountinfo.js';
import { isReadOnly, mountTable, type MountElsewhere, type MountTable } from './mounts.js';
import { inTurns, type Work } from './turns.js';

export interface MachineView {
  readonly table: MountTable;
  readonly lookup: DiskLookup;
}

export interface MachinePlaces {
  readonly mountinfoPath: string;
  readonly sysRoot: string;
  readonly udevRoot: string;
  /** Where other mount namespaces are looked for; without it they are not. */
  readonly procRoot?: string | undefined;
}

/**
 * How much is looked at.
 * - `whole`: this mount namespace and, where a superblock may be mounted that it has not, those of all processes.
 * - `own`: what is mounted elsewhere is left out, or is as it was known.
 * - `changes`: for a second look. A table that has other mounts of the same filesystems is the same; processes are
 *   asked only if something else changed.
 * - `held`: for a look while applications wait. As `changes`, but asks no process and reads no long mount table: the
 *   kernel takes 1.5 us for each line of it, 60 ms for 40,000. Filesystems whose drivers list them are seen even so.
 */
export type Extent = 'whole' | 'own' | 'changes' | 'held';

/** In turns (turns.ts). Throws what open(2) does, and as parseMountinfo. */
export type LookAtMachine = (extent?: Extent) => Promise<MachineView>;

/** A mount table of this size is read in 10 ms or so. */
const LONG_TABLE_BYTES = 512 * 1024;

/** What is mounted in this namespace. */
interface Own extends MachineView {
  readonly mountinfo: Buffer;
  /** The kernel's count then; undefined if it cannot be relied upon: look again. */
  readonly uevents: string | undefined;
}

/** What is mounted in this namespace and in the others. */
interface Look {
  readonly own: Own;
  readonly superblocks: string;
  readonly ofProcesses: readonly MountElsewhere[];
  readonly view: MachineView;
}

export function machineViewer(places: MachinePlaces): LookAtMachine {
  const viewer = new MachineViewer(places);
  return async (extent = 'whole') => await inTurns(viewer.look(extent));
}

class MachineViewer {
  readonly #places: MachinePlaces;
  #own: Own | undefined;
  #last: Look | undefined;

  constructor(places: MachinePlaces) {
    this.#places = places;
  }

  *look(extent: Extent): Work<MachineView> {
    const { procRoot, sysRoot } = this.#places;
    const before = procRoot === undefined ? [] : listedSuperblocks(sysRoot);
    const own = yield* this.#lookAtOwn(extent);
    const superblocks = before.join();
    const last = this.#last?.own === own ? this.#last : undefined;
    if (extent === 'own') return last?.view ?? own;
    const known = last?.superblocks === superblocks ? last : undefined;
    if (known !== undefined && (procRoot === undefined || extent !== 'whole' || !this.#mayHaveCome(known, procRoot)))
      return known.view;
    if (procRoot === undefined) return this.#remember({ own, superblocks, ofProcesses: [], view: own });

    // A filesystem that came or went while the mount table was read is in one of the two lists alone, and no news.
    const after = new Set(listedSuperblocks(sysRoot));
    const listed = before.filter((name) => after.has(name));
    const { table, lookup } = own;
    const unknown = unknownSuperblocks(listed, table.filesystems, lookup, sysRoot);
    const ofProcesses =
      extent === 'held'
        ? (this.#last?.ofProcesses ?? [])
        : unknown.length > 0 || hasUnlisted(table, { procRoot, sysRoot })
          ? yield* mountsOfProcesses(table, procRoot)
          : [];
    if (known !== undefined && namesOf(ofProcesses) === namesOf(known.ofProcesses)) return known.view;
    const others = ofProcesses.map(({ filesystem }) => filesystem);
    yield* lookup.prepare(others);
    const nowhere = unknownSuperblocks(listed, [...table.filesystems, ...others], lookup, sysRoot);
    const elsewhere = [...ofProcesses, ...nowhere.map((superblock) => unseen(superblock, procRoot))];
    yield* lookup.prepare(elsewhere.map(({ filesystem }) => filesystem));
    const look = { own, superblocks, ofProcesses, view: { table: { ...table, elsewhere }, lookup } };
    return extent === 'held' ? look.view : this.#remember(look);
  }

  #remember(look: Look): MachineView {
    this.#last = look;
    return look.view;
  }

  *#lookAtOwn(extent: Extent): Work<Own> {
    const { mountinfoPath, ...roots } = this.#places;
    const then = this.#own;
    // The count first: what changes while the disks are looked at makes the next look a new one. Where the kernel does
    // not count, nothing is remembered.
    const uevents = readText(join(roots.sysRoot, 'kernel/uevent_seqnum'));
    const isSame = then !== undefined && then.uevents === uevents && uevents !== undefined;
    const isSecond = extent === 'changes' || extent === 'held';
    let { table, mountinfo } = then ?? {};
    if (extent !== 'held' || mountinfo === undefined || mountinfo.length < LONG_TABLE_BYTES) {
      const now = yield* readInTurns(mountinfoPath);
      const text = now.toString('latin1');
      if (table === undefined || mountinfo === undefined || !now.equals(mountinfo)) {
        if (table === undefined || !isSecond || superblocksOf(table) !== (yield* superblocksIn(text))) {
          table = yield* mountTable(yield* parseMountinfo(text));
          mountinfo = now;
        }
      }
    }
    if (table === undefined || mountinfo === undefined) throw new Error('a mount table was neither known nor read');
    if (isSame && table === then.table) return then;
    const lookup = createDiskLookup(table, roots);
    yield* lookup.prepare(table.filesystems);
    // udev writes its database after the event, and has this file until it is done.
    const isSettled = !existsSync(join(roots.udevRoot, 'queue'));
    this.#own = { table, lookup, mountinfo, uevents: isSettled ? uevents : undefined };
    return this.#own;
  }

  // Asking every process takes longer than all the rest. Where nothing was mounted elsewhere, nothing can have come
  // there without being listed.
  #mayHaveCome({ own, view }: Look, procRoot: string): boolean {
    return view.table.elsewhere.length > 0 || hasUnlisted(own.table, { procRoot, sysRoot: this.#places.sysRoot });
  }
}

/** All of a table that concerns block devices, to be compared with that of a text. */
function superblocksOf({ filesystems }: MountTable): string {
  return names(filesystems.map((filesystem) => ({ ...filesystem, key: superblockKey(filesystem) })));
}

function* superblocksIn(text: string): Work<string> {
  const mounts = yield* mountsOfNewDevices(text, new Set());
  const holding = mounts.filter((mount) => holdsBlocks(mount) && skipReason(mount) === undefined);
  return names(holding.map((mount) => ({ key: superblockKey(mount), type: mount.type, readOnly: isReadOnly(mount) })));
}

function names(all: readonly { readonly key: string; readonly type: string; readonly readOnly: boolean }[]): string {
  return [...new Set(all.map(({ key, type, readOnly }) => `${key} ${type} ${readOnly}`))].sort().join('\n');
}

// Who is in the namespace may change while its mounts do not.
function namesOf(elsewhere: readonly MountElsewhere[]): string {
  return elsewhere.map(({ filesystem: f }) => [f.device, f.type, f.source, f.readOnly].join(' ')).join('\n');
}
