// The lab's guest as a user-mode one: an image with all that is in it, booted for each lab. Its second disk lies under a
// device-mapper device that keeps writes back when it is told to, in the guest itself and at any instant.
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { defined } from '../../../src/defined.js';
import { cached, hashOfFile, hasUsers, keyOf, prune } from '../../../src/testing/cache.js';
import { bootGuest, waitForAgent, type GuestImage, type UserModeGuest } from '../../../src/testing/index.js';
import { copyDisk } from '../../../src/testing/user-mode/boot-user-mode.js';
import { agentImage } from '../../support/agent-guest.js';
import { kernels } from '../../support/variants.js';
import { fileSystems, HALVES, installParts, LAB, partsKey, startWatch } from './lab-parts.js';
import type { ArmedStall, LabGuest } from './lab.js';

const THIS = fileURLToPath(import.meta.url);
const BUILD_LIMIT_MS = 300_000;

const DISK = 'disk';
/** Until another table is loaded: that lets them go at once (dm-delay hands over what it keeps before it is suspended). */
const FOR_EVER_MS = 3_600_000;

/** Reads and flushes of the second disk pass at once, as they do where QEMU stalls it. */
const diskTable = (writesMs: number): string =>
  `0 $(blockdev --getsz /dev/ubdb) delay /dev/ubdb 0 0 /dev/ubdb 0 ${writesMs} /dev/ubdb 0 0`;
const loadTable = (writesMs: number): string => `dmsetup load ${DISK} --table "${diskTable(writesMs)}"`;

const MAP = [
  `set -e; dmsetup create ${DISK} --table "${diskTable(0)}"`,
  ...Object.entries(HALVES).map(
    ([name, { begin, size }]) => `dmsetup create ${name} --table "0 ${size} linear /dev/mapper/${DISK} ${begin}"`,
  ),
].join('\n');
const SETUP = `umount /srv/data; sed -i '/ \\/srv\\/data /d' /etc/fstab\n${MAP}`;
const MOUNT = `${MAP}\nmount /dev/mapper/data /srv/data; mount /dev/mapper/more /srv/more`;

let image: Promise<GuestImage> | undefined;

/** The image. Slow once per build of the agent. */
export async function labImage(): Promise<GuestImage> {
  return await (image ??= buildLabImage());
}

async function buildLabImage(): Promise<GuestImage> {
  const base = await agentImage();
  const key = keyOf(base.key, base.buildId, await partsKey(await hashOfFile(THIS)));
  const directory = await cached('images', `faults-${key}`, BUILD_LIMIT_MS, async (building) => {
    await using guest = await boot(base);
    await guest.exec(SETUP);
    await guest.exec(fileSystems('/dev/mapper/data', '/dev/mapper/more'), { timeoutMs: 120_000 });
    await installParts(guest);
    await guest.shutdown();
    for (const { node, file } of guest.disks)
      await copyDisk({ file, format: 'raw' }, path.join(building, `${node}.raw`));
  });
  await prune('images', 'faults-', 2, async (old) => old === directory || (await hasUsers(old)));
  const disks = base.disks.map((disk) => ({ ...disk, file: path.join(directory, `${disk.name}.raw`) }));
  return { ...base, key, directory, disks };
}

async function boot(from: GuestImage): Promise<UserModeGuest> {
  const [kernel] = kernels();
  const guest = await bootGuest({ kind: 'user-mode', image: from, ...defined({ kernel }) });
  try {
    await guest.waitForSystem();
    await waitForAgent(guest);
    return guest;
  } catch (cause) {
    await guest[Symbol.asyncDispose]();
    throw cause;
  }
}

export async function userModeLab(): Promise<LabGuest> {
  const guest = await boot(await labImage());
  try {
    await guest.exec(MOUNT);
    await startWatch(guest);
  } catch (cause) {
    await guest[Symbol.asyncDispose]();
    throw cause;
  }
  return {
    guest,
    stall: async () => {
      const { words, letGo } = await armStall(guest);
      await guest.exec([LAB, ...words]);
      return { [Symbol.asyncDispose]: letGo };
    },
    armStall: async () => await armStall(guest),
  };
}

async function armStall(guest: UserModeGuest): Promise<ArmedStall> {
  await guest.exec(loadTable(FOR_EVER_MS));
  return {
    words: ['table', DISK],
    letGo: async () => {
      await guest.exec(`${loadTable(0)} && ${LAB} table ${DISK}`);
    },
  };
}
