// The states that tests start from, each made once and cached: `booted` (a saved guest, up and quiet) and `installed` (a
// saved guest, or an image, with Debian packages in it: the agent under test).
import { readFile, realpath } from 'node:fs/promises';
import path from 'node:path';
import { UsageError } from '../errors.js';
import { AgentChannel } from './agent-channel.js';
import { bootGuest } from './boot.js';
import { cached, exists, hashOfFile, hasUsers, keyOf, prune } from './cache.js';
import type { Guest } from './guest.js';
import type { GuestImage } from './guest-image.js';
import { guestImage } from './image.js';
import { guestPaths } from './guest-folder.js';
import { step } from './progress.js';
import { requirePrograms } from './programs.js';
import { chooseAccelerator } from './qemu/accelerator.js';
import { machineArguments } from './qemu/machine.js';
import { qemuVersion } from './qemu/qemu-version.js';
import { restoreGuest, saveState } from './qemu/saved-state.js';
import { copyDisk } from './user-mode/boot-user-mode.js';

const LIMIT_MS = 300_000;
/** Changes when a state holds something else than before. */
const STATE_VERSION = '3';

/** The folder of a state of the freshly booted image: systemd has settled, PostgreSQL accepts connections. */
export async function savedGuest(image?: GuestImage): Promise<string> {
  requirePrograms('qemu');
  const of = image ?? (await guestImage());
  const name = `booted-${await bootedKey(of)}`;
  const directory = await cached('states', name, LIMIT_MS, async (building) => {
    await step('saved guest (booted)', async () => {
      await using guest = await bootGuest({ image: of });
      await guest.waitForSystem();
      await guest.startPostgres();
      await saveState(guest, building);
    });
  });
  await prune('states', 'booted-', 2, async (old) => old === directory || (await hasUsers(old)));
  return directory;
}

export interface InstallOptions {
  /** Debian packages (files), installed together with one `dpkg -i`. */
  readonly debs: readonly string[];
  readonly image?: GuestImage;
  /** Installed states kept in the cache, the last used ones. Default 3. */
  readonly keep?: number;
}

/**
 * The folder of a state with `debs` installed and the agent they bring answering guest-ping on org.qemu.guest_agent.0.
 * They reach the guest on a hot-plugged disk: a change of the agent needs no new image and no boot.
 */
export async function installedGuest({ debs, image, keep = 3 }: InstallOptions): Promise<string> {
  const hashes = await hashesOf(debs);
  const base = await savedGuest(image);
  const name = `installed-${keyOf(path.basename(base), ...hashes)}`;
  const directory = await cached('states', name, LIMIT_MS, async (building) => {
    await step('saved guest (installed)', async () => {
      await using guest = await restoreGuest(base);
      await installDebs(guest, debs);
      await waitForAgent(guest);
      await guest.exec(['/bin/sync']);
      await saveState(guest, building);
    });
  });
  await prune('states', 'installed-', keep, async (old) => old === directory || (await hasUsers(old)));
  return directory;
}

/**
 * An image like `image` with `debs` installed, for guests of either kind to be booted from. The agent starts with the guest.
 */
export async function installedImage({ debs, image, keep = 3 }: InstallOptions): Promise<GuestImage> {
  const hashes = await hashesOf(debs);
  const base = image ?? (await guestImage());
  // Another beginning than `NAME-`: guestImage counts the images that it keeps by that.
  const prefix = `installed-${base.name}-`;
  const name = `${prefix}${keyOf(STATE_VERSION, base.key, base.buildId, ...hashes)}`;
  const build = async (building: string): Promise<void> => {
    await step(`guest image ${base.name} (installed)`, async () => {
      await using guest = await bootGuest({ kind: 'user-mode', image: base });
      await guest.waitForSystem();
      await installDebs(guest, debs);
      await waitForAgent(guest);
      await guest.shutdown();
      for (const { node, file } of guest.disks)
        await copyDisk({ file, format: 'raw' }, path.join(building, `${node}.raw`));
    });
  };
  const directory = await cached('images', name, LIMIT_MS, build);
  await prune('images', prefix, keep, async (old) => old === directory || (await hasUsers(old)));
  const disks = base.disks.map((disk) => ({ ...disk, file: path.join(directory, `${disk.name}.raw`) }));
  return { ...base, key: keyOf(base.key, ...hashes), directory, disks };
}

async function hashesOf(debs: readonly string[]): Promise<readonly string[]> {
  if (debs.length === 0) throw new UsageError('E_NO_DEBS', 'expected at least one Debian package, found none');
  for (const deb of debs) {
    if (!(await exists(deb)))
      throw new UsageError('E_NO_DEB', `${deb}: no such Debian package; build or fetch it first`);
  }
  return await Promise.all(debs.map(hashOfFile));
}

/** Installs Debian packages in a running guest. Throws BridgeError with dpkg's own words. */
export async function installDebs(guest: Guest, debs: readonly string[]): Promise<void> {
  // A link would be copied as one.
  await guest.copyIn(await Promise.all(debs.map(async (deb) => await realpath(deb))), '/var/tmp/fsb-debs');
  const script = 'dpkg -i /var/tmp/fsb-debs/*.deb 2>&1; code=$?; rm -rf /var/tmp/fsb-debs; exit $code';
  await guest.exec(script, { timeoutMs: 180_000 });
}

/** Waits until an agent answers on org.qemu.guest_agent.0, and lets go of the socket. Throws UnreachableError otherwise. */
export async function waitForAgent(guest: Guest, timeoutMs = 60_000): Promise<void> {
  await using channel = new AgentChannel(guest.qgaPath);
  await channel.waitForPing(timeoutMs);
}

/** A key of all that a saved state of this image depends on: the image as built, QEMU, the accelerator, the command line. */
async function bootedKey(image: GuestImage): Promise<string> {
  const accelerator = await chooseAccelerator(image.kernel);
  const machine = { kernel: '', initrd: '', memoryMiB: 0, cpus: 0, accelerator, ports: image.ports, disks: [] };
  const commandLine = machineArguments(machine, guestPaths('/'), true).join(' ');
  const processor = accelerator === 'kvm' ? await processorName() : '';
  return keyOf(STATE_VERSION, image.key, image.buildId, await qemuVersion(), commandLine, processor);
}

export async function processorName(): Promise<string> {
  const info = await readFile('/proc/cpuinfo', 'utf8');
  return info.split('\n').find((line) => line.startsWith('model name')) ?? '';
}
