// guest-get-disks from sysfs, and guest-fstrim by fstrim(8) (Node has no FITRIM). Each filesystem is trimmed on its
// own, as in qemu-ga, so that one that cannot be trimmed does not stop the others.
import { open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { defined } from '../../defined.js';
import { BridgeError, describeError } from '../../errors.js';
import { countedNames, isVirtual, nodeOf } from '../../linux/block-tree.js';
import { diskAddress } from '../../linux/disk-address.js';
import { readValue, realPath } from '../../linux/kernel-values.js';
import { isUtf8Path, pathBytes } from '../../linux/path-text.js';
import type { Returns } from '../../qga/commands.js';
import { refuse } from '../../qga/server.js';
import { errnoText } from '../errno-text.js';
import type { Sources } from '../kernel-files.js';
import { listed } from './filesystems.js';
import { family } from './types.js';
import { Looks } from './looks.js';

type Disk = Returns<'guest-get-disks'>[number];
type Trimmed = Returns<'guest-fstrim'>['paths'][number];

/** Large disks take their time, and the kernel cannot be hurried. */
const TRIM_LIMIT_MS = 600_000;
const OPEN_LIMIT_MS = 5000;

export function storageHandlers(sources: Sources) {
  const { compat, sysRoot, view } = sources;
  const looks = new Looks(OPEN_LIMIT_MS);
  return family({
    'guest-get-disks'() {
      const names = countedNames(join(sysRoot, 'block'));
      return names.flatMap((name) => disk(sources, join(sysRoot, 'block', name)));
    },
    async 'guest-fstrim'({ minimum }) {
      if (minimum !== undefined && minimum < 0) refuse(`value '${minimum}' is invalid for argument minimum`);
      const paths: Trimmed[] = [];
      const { table } = await view('own');
      for (const { mountpoint } of listed(table, compat)) paths.push(await trim(sources, looks, mountpoint, minimum));
      return { paths: paths.reverse() };
    },
  });
}

/** A disk and its partitions; nothing for a device without a medium. */
function disk(sources: Sources, link: string): readonly Disk[] {
  const path = realPath(link);
  const size = readValue(join(link, 'size'));
  const name = path === undefined ? undefined : nodeOf(path);
  if (path === undefined || name === undefined || size === undefined || size === '0') return [];
  const alias = readValue(join(path, 'dm/name'))?.trim();
  const slaves = countedNames(join(path, 'slaves')).flatMap((slave) => nodeOf(join(path, 'slaves', slave)) ?? []);
  const whole: Disk = {
    name,
    partition: false,
    dependencies: [...slaves],
    ...(isVirtual(path) ? {} : { address: address(sources, path, name) }),
    ...(alias === undefined || alias === '' ? {} : { alias }),
  };
  const partitions = countedNames(path)
    .filter((entry) => readValue(join(path, entry, 'partition')) !== undefined)
    .flatMap((entry) => nodeOf(join(path, entry)) ?? [])
    .map((node) => ({ name: node, partition: true, dependencies: [name] }));
  return [whole, ...partitions];
}

function address({ udevRoot }: Sources, path: string, dev: string): NonNullable<Disk['address']> {
  const { pci, busType, bus, target, unit, ccw } = diskAddress(path);
  const udev = readValue(join(udevRoot, 'data', `b${readValue(join(path, 'dev')) ?? ''}`)) ?? '';
  const serial = /^E:ID_SERIAL=(.+)$/m.exec(udev)?.[1] ?? readValue(join(path, 'serial'))?.trim();
  return {
    'pci-controller': pci,
    'bus-type': busType,
    bus,
    target,
    unit,
    ...(serial === undefined || serial === '' ? {} : { serial }),
    dev,
    ...defined({ 'ccw-address': ccw }),
  };
}

async function trim({ run }: Sources, looks: Looks, path: string, minimum: number | bigint = 0): Promise<Trimmed> {
  let folder: FileHandle;
  try {
    folder = await looks.at(path, async () => await open(pathBytes(path), 'r'));
  } catch (error) {
    return { path, error: `failed to open: ${errnoText(error)}` };
  }
  try {
    // Node starts programs with words that are UTF-8. For a name that is not, the open folder is named instead.
    const name = isUtf8Path(path) ? path : `/proc/${process.pid}/fd/${folder.fd}`;
    const args = ['--verbose', '--minimum', String(minimum), name];
    const { exitCode, stdout, output } = await run('fstrim', args, { limitMs: TRIM_LIMIT_MS });
    const bytes = /\((\d+) bytes\) trimmed/.exec(stdout)?.[1];
    if (exitCode === 0 && bytes !== undefined) return { path, trimmed: BigInt(bytes) };
    return { path, error: trimError(output) };
  } catch (error) {
    if (error instanceof BridgeError && error.code === 'E_NO_PROGRAM') {
      return { path, error: `failed to trim: the helper program 'fstrim' (package util-linux) was not found` };
    }
    return { path, error: `failed to trim: ${describeError(error)}` };
  } finally {
    await folder.close();
  }
}

// fstrim(8) has words of its own for the two errors by which the kernel says that it cannot trim at all.
function trimError(output: string): string {
  if (/not supported|Inappropriate ioctl/.test(output)) return 'trim not supported';
  const [, reason = output.trim()] = /FITRIM ioctl failed: (.+)/.exec(output) ?? [];
  return `failed to trim: ${reason}`;
}
