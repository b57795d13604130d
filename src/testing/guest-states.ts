// The saved guests that tests start from, each made once and cached: `booted` (the image, up and quiet) and `installed`
// (the same with Debian packages installed in it: the agent under test).
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { UsageError } from '../errors.js';
import { chooseAccelerator } from './accelerator.js';
import { AgentChannel } from './agent-channel.js';
import { bootGuest } from './boot.js';
import { cached, exists, hashOfFile, hasUsers, keyOf, prune } from './cache.js';
import type { Guest } from './guest.js';
import { guestImage, type GuestImage } from './image.js';
import { guestPaths } from './guest-folder.js';
import { machineArguments } from './machine.js';
import { step } from './progress.js';
import { qemuVersion } from './qemu-process.js';
import { restoreGuest, saveState } from './saved-state.js';

const LIMIT_MS = 300_000;
/** Changes when a state holds something else than before. */
const STATE_VERSION = '2';

/** The folder of a state of the freshly booted image: systemd has settled, PostgreSQL accepts connections. */
export async function savedGuest(image?: GuestImage): Promise<string> {
  const of = image ?? (await guestImage());
  const name = `booted-${await bootedKey(of)}`;
  const directory = await cached('states', name, LIMIT_MS, async (building) => {
    await step('saved guest (booted)', async () => {
      await using guest = await bootGuest({ image: of });
      await guest.waitForSystem();
      await guest.waitForPostgres();
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
  if (debs.length === 0) throw new UsageError('E_NO_DEBS', 'expected at least one Debian package, found none');
  for (const deb of debs) {
    if (!(await exists(deb))) throw new UsageError('E_NO_DEB', `${deb}: no such Debian package; build it first`);
  }
  const base = await savedGuest(image);
  const hashes = await Promise.all(debs.map(hashOfFile));
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

/** Installs Debian packages in a running guest. Throws BridgeError with dpkg's own words. */
export async function installDebs(guest: Guest, debs: readonly string[]): Promise<void> {
  await guest.copyIn(debs, '/var/tmp/fsb-debs');
  const script = 'dpkg -i /var/tmp/fsb-debs/*.deb 2>&1; code=$?; rm -rf /var/tmp/fsb-debs; exit $code';
  await guest.exec(script, { timeoutMs: 180_000 });
}

/** Waits until an agent answers on org.qemu.guest_agent.0, and lets go of the socket. */
export async function waitForAgent(guest: Guest, timeoutMs = 60_000): Promise<void> {
  await using channel = new AgentChannel(guest.qgaPath);
  await channel.waitForPing(timeoutMs);
}

/** All that a saved state of this image fits to: the image as built, QEMU, the accelerator, the command line. */
async function bootedKey(image: GuestImage): Promise<string> {
  const accelerator = await chooseAccelerator(image.kernel);
  const machine = { kernel: '', initrd: '', memoryMiB: 0, cpus: 0, accelerator, disks: [] };
  const commandLine = machineArguments(machine, guestPaths('/'), true).join(' ');
  const processor = accelerator === 'kvm' ? await processorName() : '';
  return keyOf(STATE_VERSION, image.key, image.buildId, await qemuVersion(), commandLine, processor);
}

export async function processorName(): Promise<string> {
  const info = await readFile('/proc/cpuinfo', 'utf8');
  return info.split('\n').find((line) => line.startsWith('model name')) ?? '';
}
