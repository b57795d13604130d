// Whether an overlay's file may be removed: not while a running VM has it in its block graph, a process has it open or
// locked, a known set lies on it, or another image beside it names it as its backing file. Asked right before the file
// is removed.
import { readdir, realpath } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { imageFile, readDisks, readNodes } from '../qmp/block-graph.js';
import type { Monitor } from '../qmp/monitor.js';
import { describeHolders, holdersOf, isLockedByQemu, type Holder } from './image-file.js';
import type { Manifest } from './manifest.js';
import { backingOf } from './overlay-data.js';

export interface RemovalWitnesses {
  /** Of every VM that may use the file. */
  readonly monitors: readonly Monitor[];
  /** Of every VM known. */
  readonly manifests: readonly Manifest[];
}

/** Why the overlay must stay; undefined if nobody uses it, or if it is not there. */
export async function whyInUse(file: string, { monitors, manifests }: RemovalWitnesses): Promise<string | undefined> {
  const own = await realName(file);
  for (const monitor of monitors) {
    if (await isInGraph(monitor, own)) return `the VM at ${monitor.path} has it in its block graph`;
  }
  const holders = await lastingHolders(file);
  if (holders.length > 0) return `it is in use by ${describeHolders(holders)}`;
  if (await isLockedByQemu(file)) return 'a QEMU has locked it';
  for (const { vm, set, state, disks } of manifests) {
    if (state === 'committed' || state === 'failed') continue;
    for (const { base, merged } of disks) {
      if (!merged && (await realName(base.file)) === own) return `snapshot set ${set} of ${vm.name} lies on it`;
    }
  }
  const above = await imageAbove(own);
  return above === undefined ? undefined : `${above} names it as its backing file`;
}

async function isInGraph(monitor: Monitor, own: string): Promise<boolean> {
  const names = new Set<string>();
  for (const { image } of (await readNodes(monitor)).values()) names.add(imageFile(image.filename));
  for (const { file, backingFiles } of await readDisks(monitor))
    for (const name of [file, ...backingFiles]) names.add(name);
  for (const name of names) if (name.startsWith('/') && (await realName(name)) === own) return true;
  return false;
}

/** A qemu-img that a tool started before it was killed ends by itself. */
const QEMU_IMG_LEFT_MS = 5000;

async function lastingHolders(file: string): Promise<Holder[]> {
  for (let waitedMs = 0; ; waitedMs += 100) {
    const holders = await holdersOf(file);
    if (waitedMs >= QEMU_IMG_LEFT_MS || !holders.some(({ who }) => who === 'qemu-img')) return holders;
    await sleep(100);
  }
}

async function imageAbove(own: string): Promise<string | undefined> {
  const folder = dirname(own);
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  for (const entry of entries) {
    const path = join(folder, entry.name);
    if (!entry.isFile() || path === own) continue;
    const backing = await backingOf(path).catch(() => undefined);
    if (backing !== undefined && (await realName(backing)) === own) return path;
  }
  return undefined;
}

async function realName(file: string): Promise<string> {
  return await realpath(file).catch(() => file);
}
