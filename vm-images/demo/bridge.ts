// The host tool, run as a user runs it.
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import * as v from 'valibot';
import { manifestSchema, type Manifest } from '../../src/host/sets/manifest.js';
import type { QemuGuest } from '../../src/testing/index.js';

/** For `node`: what package.json names as `fsfreeze-bridge`. */
export const HOST_TOOL = fileURLToPath(new URL('../../dist/fsfreeze-bridge.cjs', import.meta.url));
const LIMIT_MS = 180_000;

/** What `snapshot create --json` prints is the manifest and a few members more. */
const createdSchema = v.object(manifestSchema.entries);

/** `snapshot create` of all disks. Throws with the tool's own line unless it exits 0. */
export async function createSnapshot(
  guest: QemuGuest,
  set: string,
  options: readonly string[] = [],
): Promise<Manifest> {
  return v.parse(createdSchema, await runBridge(guest, ['snapshot', 'create', '--name', set, ...options]));
}

/** `snapshot commit`. Throws with the tool's own line unless it exits 0. */
export async function commitSnapshot(guest: QemuGuest, set: string): Promise<void> {
  await runBridge(guest, ['snapshot', 'commit', set]);
}

async function runBridge(guest: QemuGuest, words: readonly string[]): Promise<unknown> {
  const vm = ['--vm', 'guest', '--qmp', guest.qmpPath, '--qga', guest.qgaPath];
  const options = ['--state-dir', path.join(guest.dir, 'state'), '--json'];
  const { stdout } = await execa(process.execPath, [HOST_TOOL, ...words, ...vm, ...options], {
    timeout: LIMIT_MS,
    stderr: 'inherit',
  });
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '');
}

/** What the monitor was sent between the freeze request and the thaw reply. */
export function commandsWhileHeld({ timings, monitorLog }: Manifest): readonly string[] {
  const { freezeRequestedMs = NaN, thawAnsweredMs = NaN } = timings.marks;
  return monitorLog
    .filter(({ sentMs }) => sentMs >= freezeRequestedMs && sentMs <= thawAnsweredMs)
    .map(({ command }) => command);
}
