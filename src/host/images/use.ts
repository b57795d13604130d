// The one gate before an image is removed, replaced, renamed, merged into or written: it finds who needs the image.
// That may be a running VM that has it in its block graph, a process that has it open, a QEMU that has locked it (also
// on another machine), somebody who claims it (a snapshot set of any VM, a saved state), or another image that names
// it. Ask right before the act, under the VM's lock. An image that cannot be looked at counts as in use.
import { readdir, readFile, realpath, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describeError, isErrno } from '../../errors.js';
import { imageFile, readDisks, readNodes } from '../../qmp/block-graph.js';
import { runQmp } from '../../qmp/commands.js';
import type { Monitor } from '../../qmp/monitor.js';
import { identityOf } from './same-file.js';
import { describeHolders, holdersOfEach, type Holder } from './image-file.js';
import { isLockedByQemu } from './image-lock.js';
import { imageOf } from './socket-owner.js';
import { referencesOf } from './references.js';

/** Somebody needs a file. */
export interface Claim {
  readonly file: string;
  /** `bytes`: the file as it is. `file`: the file itself, whatever comes to be in it. */
  readonly needs: 'bytes' | 'file';
  /** For people: `snapshot set S of VM lies on it`. */
  readonly why: string;
}

export interface UseWitnesses {
  /** The monitors of every VM that may use the file. */
  readonly monitors: readonly Monitor[];
  readonly claims: readonly Claim[];
  /** Folders, beside the file's own, in which images may lie that name it. */
  readonly folders: readonly string[];
  /** Overlays that were merged, and are still there: what lies below them may change. */
  readonly spent: readonly string[];
  /** For people: what could not be looked at, and may name any file. */
  readonly unknown: readonly string[];
}

/** Uses that do not count. */
export interface Besides {
  /** The overlay that is to be merged into the file: it lies on it, and is to go. Who only needs the file keeps it. */
  readonly mergedFrom?: string;
  /** The VM that writes to this image, and what it has open: it takes part in the act. */
  readonly vmOf?: string;
}

export type Use =
  | { readonly is: 'free' }
  | { readonly is: 'used'; readonly by: string }
  | { readonly is: 'unknown'; readonly why: string };

/** Who uses the file. A file that is not there is free. Never throws. */
export async function useOf(file: string, witnesses: UseWitnesses, besides: Besides = {}): Promise<Use> {
  const doubts = [...witnesses.unknown];
  try {
    const own = await identityOf(file);
    if (own === undefined) return { is: 'free' };
    const questions = [
      () => inGraph(own, witnesses.monitors, besides),
      () => openOrLocked(file, besides),
      () => claimed(own, witnesses.claims, besides),
      () => asLoopDevice(own),
      () => namedByImage(file, own, witnesses, besides, doubts),
    ];
    for (const question of questions) {
      try {
        const by = await question();
        if (by !== undefined) return { is: 'used', by };
      } catch (error) {
        doubts.push(describeError(error));
      }
    }
  } catch (error) {
    doubts.push(describeError(error));
  }
  return doubts.length === 0 ? { is: 'free' } : { is: 'unknown', why: doubts.join('; ') };
}

/** Why the file must not be touched, for people; undefined if it may be. */
function whyNotFree(use: Use): string | undefined {
  if (use.is === 'free') return undefined;
  return use.is === 'used' ? use.by : `whether it is in use is not known (${use.why})`;
}

/** Why the first of the files that must not be touched must not be, for people. */
export async function whyInUse(
  files: readonly string[],
  witnesses: UseWitnesses,
  besides?: Besides,
): Promise<{ readonly file: string; readonly why: string } | undefined> {
  for (const file of files) {
    const why = whyNotFree(await useOf(file, witnesses, besides));
    if (why !== undefined) return { file, why };
  }
  return undefined;
}

async function inGraph(own: string, monitors: readonly Monitor[], { vmOf }: Besides): Promise<string | undefined> {
  const writer = vmOf === undefined ? undefined : await identityOf(vmOf);
  for (const monitor of monitors) {
    const nodes = await readNodes(monitor);
    for (const { 'node-name': node, id } of await runQmp(monitor, 'query-block-exports', {})) {
      const exported = nodes.get(node)?.image.filename;
      if (exported !== undefined && (await identityInGraph(monitor, exported)) === own) {
        return `the VM at ${monitor.path} exports it (${id})`;
      }
    }
    const chains = (await readDisks(monitor)).map(({ file, backingFiles }) => [file, ...backingFiles]);
    const others = vmOf === undefined ? [...nodes.values()].map(({ image }) => [image.filename]) : [];
    for (const chain of [...chains, ...others]) {
      const identities = await Promise.all(chain.map((name) => identityInGraph(monitor, name)));
      if (writer !== undefined && identities.includes(writer)) continue;
      if (identities.includes(own)) return `the VM at ${monitor.path} has it in its block graph`;
    }
  }
  return undefined;
}

// A relative name whose QEMU's folder cannot be seen says nothing here: its open files and its locks do.
async function identityInGraph(monitor: Monitor, name: string): Promise<string | undefined> {
  const file = await imageOf(monitor.path, imageFile(name));
  return file === undefined ? undefined : await identityOf(file);
}

async function openOrLocked(file: string, { vmOf }: Besides): Promise<string | undefined> {
  if (vmOf === undefined) {
    const holders = await lastingHolders(file);
    if (holders.length > 0) return `it is in use by ${describeHolders(holders)}`;
    return (await isLockedByQemu(file)) ? 'a QEMU has locked it, here or on another machine' : undefined;
  }
  // The file's lock is that VM's, and only one may write.
  const holders = (await lastingHolders(file, vmOf)).filter(({ pid }) => pid !== undefined);
  return holders.length === 0 ? undefined : `it is in use by ${describeHolders(holders)}`;
}

/** A qemu-img that a tool started before it was killed ends by itself. */
const QEMU_IMG_LEFT_MS = 5000;

/** Who has the file open and keeps it, without the processes that write to `besides`. */
async function lastingHolders(file: string, besides?: string): Promise<Holder[]> {
  for (let waitedMs = 0; ; waitedMs += 100) {
    const [all = [], others = []] = await holdersOfEach(besides === undefined ? [file] : [file, besides]);
    const writers = others.filter(({ writes }) => writes).map(({ pid }) => pid);
    const holders = all.filter(({ pid }) => pid === undefined || !writers.includes(pid));
    if (waitedMs >= QEMU_IMG_LEFT_MS || !holders.some(({ who }) => who === 'qemu-img')) return holders;
    await sleep(100);
  }
}

async function claimed(own: string, claims: readonly Claim[], { mergedFrom }: Besides): Promise<string | undefined> {
  for (const { file, needs, why } of claims) {
    if (mergedFrom !== undefined && needs === 'file') continue;
    if ((await identityOf(file)) === own) return why;
  }
  return undefined;
}

// The kernel has it open then, and no process.
async function asLoopDevice(own: string): Promise<string | undefined> {
  const devices = (await readdir('/sys/block').catch(() => [])).filter((name) => name.startsWith('loop'));
  for (const name of devices) {
    const file = await readFile(`/sys/block/${name}/loop/backing_file`, 'utf8').catch(() => undefined);
    if (file !== undefined && (await identityOf(file.trimEnd())) === own) return `it is loop device /dev/${name}`;
  }
  return undefined;
}

async function namedByImage(
  file: string,
  own: string,
  { folders, spent }: UseWitnesses,
  { mergedFrom }: Besides,
  doubts: string[],
): Promise<string | undefined> {
  const goes = new Set([own]);
  for (const each of mergedFrom === undefined ? spent : [...spent, mergedFrom]) {
    const identity = await identityOf(each);
    if (identity !== undefined) goes.add(identity);
  }
  const all = await Promise.all([file, await realpath(file)].map(dirname).concat(folders).map(realFolder));
  for (const folder of new Set(all.filter((each) => each !== undefined))) {
    for (const name of await readdir(folder)) {
      const path = join(folder, name);
      try {
        if (!(await stat(path)).isFile()) continue;
        const identity = await identityOf(path);
        if (identity === undefined || goes.has(identity)) continue;
        const { backing, dataFiles } = await referencesOf(path);
        for (const each of backing) if ((await identityOf(each)) === own) return `${path} names it as its backing file`;
        for (const each of dataFiles) if ((await identityOf(each)) === own) return `${path} has its data in it`;
      } catch (error) {
        // The name is a link to nothing, or the file is gone meanwhile.
        if (!isErrno(error, 'ENOENT')) doubts.push(`${path}: ${describeError(error)}`);
      }
    }
  }
  return undefined;
}

async function realFolder(folder: string): Promise<string | undefined> {
  try {
    return await realpath(folder);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined;
    throw error;
  }
}
