// Devices that a cut left suspended: whoever died between suspend and resume. What is written to them waits for ever,
// and to thaw a filesystem over one ruins its device until the next boot. So they are resumed before anything is thawed,
// and nothing but what belongs to the volume that was cut.
import { join } from 'node:path';
import { isSuspended, mappedDevice } from '../linux/device-mapper.js';
import { namesIn, readValue } from '../linux/kernel-values.js';
import { mustRun, type Run } from './program.js';

/** The volume that was cut: `device` is its `MAJOR:MINOR`, `run` the run that cut it, whose id is in each name of ours. */
export interface CutVolume {
  readonly device: string;
  readonly run: string;
}

/**
 * Resumes what is suspended of the volume, the innermost first. Only once whoever suspended it has ended. Throws a
 * CutError if that fails.
 */
export async function resumeSuspended(run: Run, sysRoot: string, volume: CutVolume): Promise<readonly string[]> {
  const names = suspendedOf(sysRoot, volume);
  for (const name of names) await mustRun(run, ['dmsetup', '--noudevsync', 'resume', name]);
  return names;
}

/** Names as below /dev/mapper: of what lies under the volume, of its inner devices, of our snapshot, and its own. */
export function suspendedOf(sysRoot: string, { device, run }: CutVolume): readonly string[] {
  const own = mappedDevice(sysRoot, device);
  if (own === undefined) return [];
  const below = under(sysRoot, device);
  const beside = namesIn(join(sysRoot, 'block'))
    .map((block) => readValue(join(sysRoot, 'block', block, 'dev')) ?? '')
    .filter((one) => one !== device && !below.includes(one) && isOfVolume(sysRoot, one, own.uuid, run));
  const all = [...new Set([...below, ...beside, device])];
  return all.filter((one) => isSuspended(sysRoot, one)).flatMap((one) => mappedDevice(sysRoot, one)?.name ?? []);
}

/** LVM gives the inner devices of a volume its uuid and a suffix. */
function isOfVolume(sysRoot: string, device: string, uuid: string, run: string): boolean {
  const mapped = mappedDevice(sysRoot, device);
  if (mapped === undefined) return false;
  return (uuid !== '' && mapped.uuid.startsWith(`${uuid}-`)) || mapped.name.includes(`fsb_${run}_`);
}

/** What the device lies on, the innermost first. */
function under(sysRoot: string, device: string): readonly string[] {
  return namesIn(join(sysRoot, 'dev/block', device, 'slaves')).flatMap((name) => {
    const below = readValue(join(sysRoot, 'block', name, 'dev'));
    return below === undefined ? [] : [...under(sysRoot, below), below];
  });
}
