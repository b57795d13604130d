// The one gate before an image is removed, replaced, renamed or written: who uses it. A running VM that has it in its block
// graph, a process that has it open or locked, somebody who claims it (a snapshot set that lies on it), another image
// beside it that names it as its backing file. Asked right before the act.
import { readdir, realpath } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { imageFile, readDisks, readNodes } from '../../qmp/block-graph.js';
import type { Monitor } from '../../qmp/monitor.js';
import { describeHolders, holdersOf, isLockedByQemu, type Holder } from './image-file.js';
import { backingOf } from './overlay-data.js';

/** Somebody needs a file as it is. */
export interface Claim {
  readonly file: string;
  /** For people: `snapshot set S of VM lies on it`. */
  readonly why: string;
}

export interface UseWitnesses {
  /** Of every VM that may use the file. */
  readonly monitors: readonly Monitor[];
  readonly claims: readonly Claim[];
}

/** Who uses the image, for people; undefined if nobody does, or if it is not there. */
export async function whyInUse(file: string, { monitors, claims }: UseWitnesses): Promise<string | undefined> {
  const own = await realName(file);
  for (const monitor of monitors) {
    if (await isInGraph(monitor, own)) return `the VM at ${monitor.path} has it in its block graph`;
  }
  const holders = await lastingHolders(file);
  if (holders.length > 0) return `it is in use by ${describeHolders(holders)}`;
  if (await isLockedByQemu(file)) return 'a QEMU has locked it';
  for (const claim of claims) if ((await realName(claim.file)) === own) return claim.why;
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
