// Reads what the kernel has counted of the writes to a block device, which keeps no time of them as a file does. The
// count begins anew when the machine boots, and when the device is made anew (a logical volume that is activated
// again), so that it says something only beside a count of the same boot and the same device. Writes of other machines
// to shared storage are not in it. Specification: Linux Documentation/ABI/stable/sysfs-block (stat, diskseq,
// queue/iostats).
import { readFile } from 'node:fs/promises';
import { syncPath } from './durable-file.js';

export interface DeviceWrites {
  /** The kernel's id of this boot. */
  readonly boot: string;
  /** Another one whenever a device is made; empty if the kernel does not tell (before Linux 5.15). */
  readonly disk: string;
  /** Sectors written and discarded since then. */
  readonly sectors: string;
}

/** The count now; all that was written before is on the device. Undefined if the kernel does not count or tell. */
export async function deviceWrites(
  file: string,
  rdev: bigint,
  devices = '/sys/dev/block',
): Promise<DeviceWrites | undefined> {
  try {
    // Writes that lie in the page cache are not counted yet.
    await syncPath(file);
    const device = `${devices}/${majorMinor(rdev)}`;
    // A partition has these of its disk.
    const ofDisk = async (name: string): Promise<string> =>
      (await read(`${device}/${name}`).catch(() => read(`${device}/../${name}`))).trim();
    if ((await ofDisk('queue/iostats')) !== '1') return undefined;
    const fields = (await read(`${device}/stat`)).trim().split(/\s+/);
    const [written, discarded = '0'] = [fields[6], fields[13]];
    if (written === undefined) return undefined;
    const boot = (await read('/proc/sys/kernel/random/boot_id')).trim();
    const disk = await ofDisk('diskseq').catch(() => '');
    const sectors = `${written} ${discarded}`;
    // A device that was made anew begins with this count, too.
    return disk === '' && sectors === '0 0' ? undefined : { boot, disk, sectors };
  } catch {
    return undefined;
  }
}

/** `MAJOR:MINOR`, from the number into which Linux packs them (makedev(3)). */
function majorMinor(rdev: bigint): string {
  const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn);
  const minor = (rdev & 0xffn) | ((rdev >> 12n) & ~0xffn);
  return `${major}:${minor & 0xffffffffn}`;
}

async function read(file: string): Promise<string> {
  return await readFile(file, 'utf8');
}
